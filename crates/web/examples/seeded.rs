//! Serves a Gust in memory with one DAG and a few runs on a loopback port, for trying clients against the API:
//! `cargo run -p gust-web --example seeded -- 8090`.

#[path = "../tests/it/world.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "It is the tests' world, which they use more of.")]
mod world;

use std::sync::Arc;

use gust_ports::SystemClock;
use gust_web::AuthMode;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter("gust_web=debug").init();
    let port: u16 = std::env::args().nth(1).unwrap_or_else(|| "8090".to_owned()).parse()?;
    let seeded = world::World::bare(AuthMode::AllAdmins, Arc::new(SystemClock::default()));
    world::seed(&seeded.state).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    gust_web::serve(listener, seeded.state, async {
        // Without a signal handler the server just runs on.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
    .await?;
    Ok(())
}
