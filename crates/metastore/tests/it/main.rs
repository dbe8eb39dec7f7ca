//! What every metastore does, whatever database it stands on: one behaviour a function, run on each backend, so that a
//! test is named `claims::claim_of_an_old_epoch_finds_nothing::postgres`.

#![expect(clippy::unwrap_used, reason = "A metastore that fails where it must not fails the test.")]

mod admission;
mod assets;
mod backend;
mod claims;
mod due;
mod fixtures;
mod memory;
mod patches;
mod races;
mod registry;
mod runs;
mod secrets;
mod task_instances;
mod transactions;
mod work;
mod xcoms;

/// Makes tests of behaviours: on every backend, or on those where two transactions write at once.
macro_rules! behaviours {
    (everywhere: $($name:ident)+) => { behaviours! { @on [memory sqlite postgres] $($name)+ } };
    (where_writers_run_side_by_side: $($name:ident)+) => { behaviours! { @on [memory postgres] $($name)+ } };
    (@on $backends:tt $($name:ident)+) => { $(behaviours! { @module $name $backends })+ };
    (@module $name:ident [$($backend:ident)+]) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $backend() {
                if let Some(backend) = crate::backend::$backend().await {
                    super::$name(&backend).await;
                }
            })+
        }
    };
}
pub(crate) use behaviours;
