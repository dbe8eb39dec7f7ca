//! A headless Chromium that is driven over the `WebDriver` protocol.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use gust_tests::{eventually, keep_looking};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A generous bound for what a page shows at once.
const SOON: Duration = Duration::from_secs(30);

/// The key under which `WebDriver` hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Flags of a browser that stays on this machine and leaves nothing behind.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// One browser with one tab, and an empty profile.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    /// The folder of the profile and of what the driver says; it lives as long as the browser.
    folder: TempDir,
    http: Client,
    session: String,
}

/// A program on the path.
fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

impl Browser {
    /// Starts one of this size; `None`, after saying why, where there is none on this machine.
    ///
    /// # Panics
    /// If there is none and `CI` is set, or if what is there does not start.
    pub async fn start(width: u32, height: u32) -> Option<Self> {
        let programs =
            on_path(&["chromium", "chromium-browser", "google-chrome"]).zip(on_path(&["chromedriver"]));
        let Some((chromium, chromedriver)) = programs else {
            assert!(env::var_os("CI").is_none(), "Chromium and chromedriver must be on the PATH in CI");
            eprintln!("skipped: Chromium and chromedriver are not on the PATH");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("gust-browser-").tempdir().unwrap();
        let said = folder.path().join("driver.out");
        let out = fs::File::create(&said).unwrap();
        let driver = Command::new(chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .expect("chromedriver starts");
        let mut browser = Self { driver, folder, http: Client::new(), session: String::new() };
        let port = eventually("chromedriver names its port", SOON, async || {
            let said = fs::read_to_string(&said).unwrap_or_default();
            let (_, rest) = said.split_once("started successfully on port ")?;
            rest.split_once('.').map(|(port, _)| port.to_owned())
        })
        .await;
        let profile = browser.folder.path().join("profile");
        let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        flags.push(format!("--window-size={width},{height}"));
        flags.push(format!("--user-data-dir={}", profile.display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        browser.session = format!("http://127.0.0.1:{port}/session");
        let answer = browser.send(Method::POST, "", Some(wanted)).await;
        let id = answer["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("http://127.0.0.1:{port}/session/{id}");
        Some(browser)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("chromedriver answers");
        let is_good = answer.status().is_success();
        let mut body: Value = answer.json().await.expect("chromedriver answers in JSON");
        let value = body["value"].take();
        if is_good { Ok(value) } else { Err(value) }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        self.ask(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Opens an address and waits for it to be loaded.
    pub async fn open(&self, url: &str) {
        self.send(Method::POST, "/url", Some(json!({ "url": url }))).await;
    }

    /// The address of what is shown.
    pub async fn url(&self) -> String {
        self.send(Method::GET, "/url", None).await.as_str().unwrap_or_default().to_owned()
    }

    /// What the body of a function says in the page.
    pub async fn run(&self, script: &str) -> Value {
        self.send(Method::POST, "/execute/sync", Some(json!({ "script": script, "args": [] }))).await
    }

    /// Waits until an expression is true in the page.
    pub async fn wait(&self, expression: &str) {
        self.wait_for(expression, SOON).await;
    }

    /// Waits until an expression is true in the page, for so long.
    ///
    /// # Panics
    /// If it is not; it says what the page shows instead.
    pub async fn wait_for(&self, expression: &str, limit: Duration) {
        let script = format!("return Boolean({expression})");
        let look = async || {
            // While a page is left for another there is none to ask.
            let body = json!({ "script": script, "args": [] });
            let is_so = self.ask(Method::POST, "/execute/sync", Some(body)).await;
            (is_so == Ok(Value::Bool(true))).then_some(())
        };
        if keep_looking(limit, look).await.is_none() {
            let shown = self.run("return document.body.innerText").await;
            let url = self.url().await;
            panic!(
                "`{expression}` did not become true on {url}, which shows:\n{}",
                shown.as_str().unwrap_or_default()
            );
        }
    }

    /// Waits until an element is there.
    pub async fn wait_element(&self, selector: &str) {
        self.wait(&format!("document.querySelector({})", json!(selector))).await;
    }

    async fn element(&self, selector: &str) -> String {
        self.wait_element(selector).await;
        let found = self
            .send(Method::POST, "/element", Some(json!({"using": "css selector", "value": selector})))
            .await;
        found[ELEMENT].as_str().expect("an element has an id").to_owned()
    }

    /// Clicks what a person could click there.
    pub async fn click(&self, selector: &str) {
        let mut last = Value::Null;
        // An update of the page may come between finding and clicking.
        let clicked = keep_looking(SOON, async || {
            let element = self.element(selector).await;
            match self.ask(Method::POST, &format!("/element/{element}/click"), Some(json!({}))).await {
                Ok(_) => Some(()),
                Err(error) => {
                    last = error;
                    None
                }
            }
        })
        .await;
        assert!(clicked.is_some(), "{selector} cannot be clicked: {last}");
    }

    /// Replaces what is in a field by typing.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.send(Method::POST, &format!("/element/{element}/clear"), Some(json!({}))).await;
        self.send(Method::POST, &format!("/element/{element}/value"), Some(json!({ "text": text }))).await;
    }

    /// What the page shows at an element.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.element(selector).await;
        let text = self.send(Method::GET, &format!("/element/{element}/text"), None).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What the browser complained of since it was last asked: errors of scripts and loads, and breaches of the
    /// Content-Security-Policy.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.send(Method::POST, "/se/log", Some(json!({ "type": "browser" }))).await;
        let is_complaint = |entry: &&Value| entry["level"] == "SEVERE" || entry["source"] == "security";
        entries
            .as_array()
            .into_iter()
            .flatten()
            .filter(is_complaint)
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// A picture of what is shown, as PNG in base 64.
    pub async fn picture(&self) -> String {
        self.send(Method::GET, "/screenshot", None).await.as_str().unwrap_or_default().to_owned()
    }

    /// Asks the driver to close the browser, without a runtime, as a failing test has none to wait in.
    fn close(&self) -> io::Result<()> {
        let Some((host, path)) = self.session.strip_prefix("http://").and_then(|rest| rest.split_once('/'))
        else {
            return Ok(());
        };
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        // The answer comes when the browser is gone.
        stream.read_exact(&mut [0])?;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("the browser may live on: {error}");
        }
        // The driver may have ended by itself.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
