use gust_model::{DagId, Epoch, MapIndex, RunId, TaskId, record::TaskInstance};
use gust_ports::{ObjectKey, ObjectStoreError};

/// The try whose log is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryLog {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// The index; it is left out of the key for a task that is not mapped.
    pub map_index: MapIndex,
    /// The try.
    pub try_number: i32,
}

impl TryLog {
    /// The log of a task instance's current try.
    #[must_use]
    pub fn of(task_instance: &TaskInstance) -> Self {
        Self {
            dag_id: task_instance.dag_id.clone(),
            run_id: task_instance.run_id.clone(),
            task_id: task_instance.task_id.clone(),
            map_index: task_instance.map_index,
            try_number: task_instance.try_number,
        }
    }

    /// The prefix of its chunks' keys, with a slash at its end.
    #[must_use]
    pub fn prefix(&self) -> String {
        let mapped =
            if self.map_index.is_mapped() { format!("map_index={}/", self.map_index) } else { String::new() };
        format!(
            "logs/dag_id={}/run_id={}/task_id={}/{mapped}attempt={}/",
            ObjectKey::segment(self.dag_id.as_str()),
            ObjectKey::segment(self.run_id.as_str()),
            ObjectKey::segment(self.task_id.as_str()),
            self.try_number,
        )
    }

    /// The key of one of its chunks.
    ///
    /// # Errors
    /// [`ObjectStoreError::BadKey`] when the ids are so long that no object store takes the key.
    pub fn key(&self, chunk: ChunkName) -> Result<ObjectKey, ObjectStoreError> {
        ObjectKey::new(format!("{}{}", self.prefix(), chunk.file_name()))
    }
}

/// A chunk's name within its try. Names sort as they were written: by epoch (a deferral's next part, a successor after
/// a reaped worker), then by sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkName {
    /// The epoch of the claim under which it was written.
    pub epoch: Epoch,
    /// 0, 1, 2 … within the epoch.
    pub seq: u32,
    /// Whether nothing follows in this epoch.
    pub is_end: bool,
}

const SUFFIX: &str = ".jsonl.zst";

impl ChunkName {
    /// The name as it stands in the key.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:08}-{:08}{}{SUFFIX}", self.epoch.0, self.seq, if self.is_end { "-end" } else { "" })
    }

    /// Reads a name; `None` if it is not a chunk's.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_suffix(SUFFIX)?;
        let (stem, is_end) = stem.strip_suffix("-end").map_or((stem, false), |stem| (stem, true));
        let (epoch, seq) = stem.split_once('-')?;
        let digits = |text: &str| text.len() >= 8 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(epoch) || !digits(seq) {
            return None;
        }
        Some(Self { epoch: Epoch(epoch.parse().ok()?), seq: seq.parse().ok()?, is_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(task: &str, map_index: i32) -> TryLog {
        TryLog {
            dag_id: "d".into(),
            run_id: "manual__2026-11-23T10:00:00+00:00".into(),
            task_id: task.into(),
            map_index: MapIndex(map_index),
            try_number: 2,
        }
    }

    #[test]
    fn keys_have_airflows_layout_with_the_index_only_where_there_is_one() {
        let end = ChunkName { epoch: Epoch(3), seq: 0, is_end: true };
        assert_eq!(
            log("g.t", -1).key(end).unwrap().as_str(),
            "logs/dag_id=d/run_id=manual__2026-11-23T10:00:00+00:00/task_id=g.t/attempt=2/00000003-00000000-end.jsonl.zst"
        );
        assert!(log("t", 4).prefix().contains("/map_index=4/attempt=2/"));
    }

    #[test]
    fn ids_that_try_to_leave_the_prefix_stay_inside_it() {
        for nasty in ["../../x", "a/b", "..", ".", "a\u{0}b", "ünï"] {
            let key = log(nasty, -1).key(ChunkName { epoch: Epoch(1), seq: 0, is_end: false }).unwrap();
            assert_eq!(key.as_str().split('/').count(), 6, "{key}");
        }
    }

    #[test]
    fn names_read_back_and_strangers_are_no_chunks() {
        for is_end in [false, true] {
            let name = ChunkName { epoch: Epoch(12), seq: 7, is_end };
            assert_eq!(ChunkName::parse(&name.file_name()), Some(name));
        }
        for stranger in
            ["attempt=1.log", "1-2.jsonl.zst", "00000001-0000000x.jsonl.zst", "00000001.jsonl.zst", ""]
        {
            assert_eq!(ChunkName::parse(stranger), None, "{stranger}");
        }
    }
}
