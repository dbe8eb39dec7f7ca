use std::sync::Arc;

use gust_model::{DagVersionId, dag::Dag, record::DagVersion};
use gust_operations::{OperationError, Ports};
use gust_ports::{
    Cipher, Clock, Ids, Metastore, ObjectStore, Tx, Wakeups,
    metastore::{DagGraphs, VersionGraph},
};
use gust_timetable::Timetable;

use crate::auth::Auth;

/// What the caller decides about the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names, without port, by which clients may call the server (`localhost`); any if empty. In the mode in which
    /// everybody is an administrator it must not be empty: it is what keeps other web sites' pages out.
    pub allowed_hosts: Vec<String>,
    /// How large a request's body may be, in bytes.
    pub max_body_bytes: usize,
    /// After how many seconds without a word a component counts as unhealthy
    /// (`[scheduler] scheduler_health_check_threshold`).
    pub health_threshold_s: u32,
    /// Whether cookies are only sent over HTTPS.
    pub secure_cookies: bool,
    /// How long a log's answer may be, in lines.
    pub max_log_lines: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allowed_hosts: ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec(),
            max_body_bytes: 4 * 1024 * 1024,
            health_threshold_s: 30,
            secure_cookies: false,
            max_log_lines: 20_000,
        }
    }
}

/// Everything that handlers work with.
#[derive(Clone)]
pub struct AppState {
    /// The truth.
    pub metastore: Arc<dyn Metastore>,
    /// Where logs and bundles lie.
    pub store: Arc<dyn ObjectStore>,
    /// Who is told of changes, and who tells of them.
    pub wakeups: Arc<dyn Wakeups>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Opens and seals Connections and Variables.
    pub cipher: Arc<dyn Cipher>,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// What the caller decided.
    pub settings: Arc<Settings>,
    graphs: Arc<DagGraphs>,
}

impl AppState {
    /// Puts the parts together.
    #[expect(
        clippy::too_many_arguments,
        reason = "It is the composition root's list of parts, named at the call."
    )]
    pub fn new(
        metastore: Arc<dyn Metastore>,
        store: Arc<dyn ObjectStore>,
        wakeups: Arc<dyn Wakeups>,
        ids: Arc<dyn Ids>,
        clock: Arc<dyn Clock>,
        cipher: Arc<dyn Cipher>,
        auth: Auth,
        settings: Settings,
    ) -> Self {
        Self {
            metastore,
            store,
            wakeups,
            ids,
            clock,
            cipher,
            auth: Arc::new(auth),
            settings: Arc::new(settings),
            graphs: Arc::new(DagGraphs::default()),
        }
    }

    /// What the operations work over.
    #[must_use]
    pub fn ports(&self) -> Ports<'_> {
        Ports { metastore: &*self.metastore, wakeups: &*self.wakeups, ids: &*self.ids }
    }

    /// The graph of a DAG version, from memory if it was asked for lately; `None` if there is no such version.
    ///
    /// # Errors
    /// [`OperationError::Unreadable`] if what is stored cannot be read.
    pub async fn graph(&self, tx: &mut dyn Tx, id: DagVersionId) -> Result<Option<Graph>, OperationError> {
        let Some(VersionGraph { version, dag }) = self.graphs.get(tx, id).await? else { return Ok(None) };
        let timetable = Timetable::from_serialized(&dag.timetable).ok();
        Ok(Some(Graph { version, dag, timetable }))
    }
}

/// A version of a DAG with its graph, read.
#[derive(Debug)]
pub struct Graph {
    /// The version.
    pub version: DagVersion,
    /// The graph.
    pub dag: Arc<Dag>,
    /// Its timetable, if it can be read.
    pub timetable: Option<Timetable>,
}
