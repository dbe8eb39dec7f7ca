//! Serialized DAGs in few words.

use serde_json::{Map, Value, json};

/// A DAG under construction.
#[derive(Debug, Clone)]
pub struct Build {
    dag: Map<String, Value>,
    tasks: Vec<Value>,
    group: Option<String>,
    groups: Map<String, Value>,
    ungrouped: Map<String, Value>,
}

/// A DAG without tasks.
pub fn dag(dag_id: &str) -> Build {
    let dag = json!({ "dag_id": dag_id, "fileloc": "test.py", "timetable": null });
    Build {
        dag: dag.as_object().unwrap().clone(),
        tasks: Vec::new(),
        group: None,
        groups: Map::new(),
        ungrouped: Map::new(),
    }
}

impl Build {
    /// Sets an attribute of the DAG.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.dag.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a task with the tasks after it and other serialized values.
    pub fn task(mut self, task_id: &str, downstream: &[&str], more: Value) -> Self {
        let mut task = json!({ "task_id": task_id, "task_type": "Test", "downstream_task_ids": downstream });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.tasks.push(json!({ "__type": "operator", "__var": task }));
        let child = json!(["operator", task_id]);
        match &self.group {
            Some(group) => {
                let children = self.groups[group][1]["children"].as_object_mut().unwrap();
                children.insert(task_id.to_owned(), child);
            }
            None => {
                self.ungrouped.insert(task_id.to_owned(), child);
            }
        }
        self
    }

    /// Adds a mapped task.
    pub fn mapped(self, task_id: &str, downstream: &[&str], over: Value, partial: Value) -> Self {
        let more = json!({
            "_is_mapped": true,
            "_expand_input_attr": "expand_input",
            "expand_input": { "type": "dict-of-lists", "value": { "__type": "dict", "__var": { "x": over } } },
            "partial_kwargs": partial,
        });
        self.task(task_id, downstream, more)
    }

    /// The tasks that follow are in a group mapped over this.
    pub fn group(mut self, group_id: &str, over: Value) -> Self {
        let group = json!({
            "_group_id": group_id,
            "prefix_group_id": false,
            "is_mapped": true,
            "expand_input": { "type": "dict-of-lists", "value": { "__type": "dict", "__var": { "x": over } } },
            "children": {},
        });
        self.groups.insert(group_id.to_owned(), json!(["taskgroup", group]));
        self.group = Some(group_id.to_owned());
        self
    }

    /// The tasks that follow are in no group.
    pub fn end_group(mut self) -> Self {
        self.group = None;
        self
    }

    /// The serialized DAG.
    pub fn done(self) -> Value {
        let mut dag = self.dag;
        let mut children = self.ungrouped;
        children.extend(self.groups);
        dag.insert("tasks".to_owned(), Value::Array(self.tasks));
        dag.insert("task_group".to_owned(), json!({ "_group_id": null, "children": children }));
        json!({ "__version": 3, "dag": dag })
    }
}

/// The value of a task, as an argument of a mapping.
pub fn value_of(task_id: &str) -> Value {
    json!({ "__type": "xcomref", "__var": { "task_id": task_id, "key": "return_value" } })
}

/// Values of an operator that does nothing.
pub fn empty() -> Value {
    json!({ "_is_empty": true })
}

/// No values.
pub fn plain() -> Value {
    json!({})
}
