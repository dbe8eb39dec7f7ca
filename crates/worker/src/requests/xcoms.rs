//! XComs (`airflow/api_fastapi/execution_api/routes/xcoms.py`).

use std::collections::HashMap;

use gust_model::{
    DagRunId, MapIndex,
    record::{Timestamp, XCom, XComKey},
};
use gust_ports::{
    Tx,
    metastore::{DagRunFilter, Page, XComFilter},
};
use gust_python_host::messages::{
    DeleteXCom, ErrorType, GetXCom, GetXComCount, GetXComSequenceItem, GetXComSequenceSlice, Reply, SetXCom,
    ToTask, XComCountResponse, XComResult, XComSequenceIndexResult, XComSequenceSliceResult,
};
use serde_json::{Value, json};

use super::{Desk, Write, refused};
use crate::error::WorkerError;

fn index(map_index: Option<i64>) -> MapIndex {
    MapIndex(map_index.filter(|&index| index >= 0).and_then(|index| i32::try_from(index).ok()).unwrap_or(-1))
}

fn filter(dag_id: &str, run_id: Option<&str>, task_id: &str, key: &str) -> XComFilter {
    XComFilter {
        dag_id: Some(dag_id.into()),
        run_id: run_id.map(Into::into),
        task_id: Some(task_id.into()),
        map_index: None,
        key: Some(key.to_owned()),
    }
}

/// How long a value is as JSON, without making the text. Counting stops beyond `limit`.
fn json_bytes(value: &Value, limit: usize) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => sum(items.iter().map(|item| json_bytes(item, limit) + 1), limit),
        Value::Object(entries) => {
            sum(entries.iter().map(|(key, item)| key.len() + 4 + json_bytes(item, limit)), limit)
        }
    }
}

fn sum(sizes: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut total: usize = 2;
    for size in sizes {
        total += size;
        if total > limit {
            break;
        }
    }
    total
}

impl Desk {
    /// The write that a `SetXCom` asks for; none where its run has to be looked up first.
    pub(super) fn set_xcom(&self, m: &SetXCom) -> Result<Option<Write>, Reply> {
        if m.key.is_empty() {
            return Err(refused(400, "invalid_key", "XCom key must be a non-empty string."));
        }
        if m.mapped_length.is_some_and(|length| length > self.config.max_map_length) {
            return Err(refused(
                400,
                "unmappable_return_value_length",
                "pushed value is too large to map as a downstream's dependency",
            ));
        }
        let limit = self.config.max_xcom_bytes;
        if json_bytes(&m.value, limit) > limit {
            return Err(refused(
                413,
                "xcom_too_large",
                format!(
                    "the XCom {:?} has more than {limit} bytes; store it elsewhere and push its address",
                    m.key
                ),
            ));
        }
        Ok(self.own_run(&m.dag_id, &m.run_id).map(|run| self.xcom_write(m, run)))
    }

    fn xcom_write(&self, m: &SetXCom, dag_run_id: DagRunId) -> Write {
        Write::PutXCom(Box::new(XCom {
            key: XComKey {
                dag_run_id,
                task_id: m.task_id.as_str().into(),
                map_index: index(m.map_index),
                key: m.key.clone(),
            },
            dag_id: m.dag_id.as_str().into(),
            run_id: m.run_id.as_str().into(),
            value: m.value.clone(),
            mapped_length: m.mapped_length.and_then(|length| u32::try_from(length).ok()),
            is_dag_result: m.dag_result,
            timestamp: self.services.clock.now(),
        }))
    }

    pub(super) async fn set_foreign_xcom(&self, m: &SetXCom) -> Result<Reply, WorkerError> {
        let mut tx = self.write().await?;
        let Some(run) = self.run_id(&mut *tx, &m.dag_id, &m.run_id).await? else {
            return Ok(refused(404, "not_found", format!("DAG {} has no run {}", m.dag_id, m.run_id)));
        };
        if let Write::PutXCom(xcom) = self.xcom_write(m, run) {
            tx.put_xcoms(&[*xcom]).await?;
        }
        tx.commit().await?;
        Ok(Reply::Empty)
    }

    /// The write that a `DeleteXCom` asks for; none where its run has to be looked up first.
    pub(super) fn delete_xcom(&self, m: &DeleteXCom) -> Option<Write> {
        let dag_run_id = self.own_run(&m.dag_id, &m.run_id)?;
        Some(Write::DeleteXCom(XComKey {
            dag_run_id,
            task_id: m.task_id.as_str().into(),
            map_index: index(m.map_index),
            key: m.key.clone(),
        }))
    }

    pub(super) async fn delete_foreign_xcom(&self, m: &DeleteXCom) -> Result<Reply, WorkerError> {
        let mut tx = self.write().await?;
        if let Some(dag_run_id) = self.run_id(&mut *tx, &m.dag_id, &m.run_id).await? {
            let key = XComKey {
                dag_run_id,
                task_id: m.task_id.as_str().into(),
                map_index: index(m.map_index),
                key: m.key.clone(),
            };
            tx.delete_xcom(&key).await?;
            tx.commit().await?;
        }
        Ok(Reply::Empty)
    }

    pub(super) async fn get_xcom(&self, m: &GetXCom) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let found = if m.include_prior_dates {
            let date = self.date_of(&mut *tx, &m.dag_id, &m.run_id).await?;
            match date {
                Some(date) => {
                    let (dag_id, task_id) = (m.dag_id.as_str().into(), m.task_id.as_str().into());
                    tx.latest_xcom(&dag_id, &task_id, index(m.map_index), &m.key, date).await?
                }
                None => None,
            }
        } else {
            match self.run_id(&mut *tx, &m.dag_id, &m.run_id).await? {
                Some(dag_run_id) => {
                    let key = XComKey {
                        dag_run_id,
                        task_id: m.task_id.as_str().into(),
                        map_index: index(m.map_index),
                        key: m.key.clone(),
                    };
                    tx.xcom(&key).await?
                }
                None => None,
            }
        };
        // An XCom that is not there is none with a null value, as in Airflow 2
        // (`airflow/sdk/api/client.py: XComOperations.get`).
        let value = found.map_or(Value::Null, |xcom| xcom.value);
        Ok(ToTask::XComResult(XComResult { key: m.key.clone(), value }).into())
    }

    pub(super) async fn count_xcoms(&self, m: &GetXComCount) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let found = tx.xcoms(&filter(&m.dag_id, Some(&m.run_id), &m.task_id, &m.key), 1, 0).await?;
        let len = i64::try_from(found.total).unwrap_or(i64::MAX);
        Ok(ToTask::XComCountResponse(XComCountResponse { len }).into())
    }

    pub(super) async fn xcom_item(&self, m: &GetXComSequenceItem) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let filter = filter(&m.dag_id, Some(&m.run_id), &m.task_id, &m.key);
        let offset = if m.offset >= 0 {
            Some(m.offset)
        } else {
            let total = i64::try_from(tx.xcoms(&filter, 1, 0).await?.total).unwrap_or(i64::MAX);
            Some(total + m.offset).filter(|&offset| offset >= 0)
        };
        let found = match offset.and_then(|offset| u32::try_from(offset).ok()) {
            Some(offset) => tx.xcoms(&filter, 1, offset).await?.items.pop(),
            None => None,
        };
        Ok(match found {
            Some(xcom) => {
                ToTask::XComSequenceIndexResult(XComSequenceIndexResult { root: xcom.value }).into()
            }
            None => Reply::not_found(
                ErrorType::XComNotFound,
                json!({
                    "dag_id": m.dag_id,
                    "run_id": m.run_id,
                    "task_id": m.task_id,
                    "key": m.key,
                    "offset": m.offset,
                }),
            ),
        })
    }

    pub(super) async fn xcom_slice(&self, m: &GetXComSequenceSlice) -> Result<Reply, WorkerError> {
        let mut tx = self.read().await?;
        let values: Vec<Value> = if m.include_prior_dates {
            self.prior_values(&mut *tx, m).await?
        } else {
            let filter = filter(&m.dag_id, Some(&m.run_id), &m.task_id, &m.key);
            tx.xcoms(&filter, u32::MAX, 0).await?.items.into_iter().map(|xcom| xcom.value).collect()
        };
        let root = slice(values, m.start, m.stop, m.step);
        Ok(ToTask::XComSequenceSliceResult(XComSequenceSliceResult { root }).into())
    }

    /// The values of all runs up to the asked one, by index, the newest run first within an index.
    async fn prior_values(
        &self,
        tx: &mut dyn Tx,
        m: &GetXComSequenceSlice,
    ) -> Result<Vec<Value>, WorkerError> {
        let Some(until) = self.date_of(tx, &m.dag_id, &m.run_id).await? else { return Ok(Vec::new()) };
        let found = tx.xcoms(&filter(&m.dag_id, None, &m.task_id, &m.key), u32::MAX, 0).await?.items;
        let filter = DagRunFilter { dag_ids: vec![m.dag_id.as_str().into()], ..DagRunFilter::default() };
        let dates: HashMap<DagRunId, Timestamp> = tx
            .dag_runs(&filter, &Page::first(u32::MAX))
            .await?
            .items
            .into_iter()
            .map(|run| (run.id, run.logical_date.unwrap_or(run.run_after)))
            .collect();
        let mut found: Vec<_> = found
            .into_iter()
            .filter_map(|xcom| Some((*dates.get(&xcom.key.dag_run_id)?, xcom)))
            .filter(|(date, _)| *date <= until)
            .collect();
        found.sort_by(|(a_date, a), (b_date, b)| {
            a.key.map_index.cmp(&b.key.map_index).then(b_date.cmp(a_date))
        });
        Ok(found.into_iter().map(|(_, xcom)| xcom.value).collect())
    }

    async fn date_of(
        &self,
        tx: &mut dyn Tx,
        dag_id: &str,
        run_id: &str,
    ) -> Result<Option<Timestamp>, WorkerError> {
        if let Some(asker) = &self.asker
            && self.own_run(dag_id, run_id).is_some()
        {
            return Ok(Some(asker.run.logical_date.unwrap_or(asker.run.run_after)));
        }
        let run = tx.dag_run(&dag_id.into(), &run_id.into()).await?;
        Ok(run.map(|run| run.logical_date.unwrap_or(run.run_after)))
    }
}

/// Python's `values[start:stop:step]`.
fn slice(values: Vec<Value>, from: Option<i64>, until: Option<i64>, step: Option<i64>) -> Vec<Value> {
    let length = i64::try_from(values.len()).unwrap_or(i64::MAX);
    let stride = step.filter(|&step| step != 0).unwrap_or(1);
    if from.is_none() && until.is_none() && stride == 1 {
        return values;
    }
    let (lowest, highest) = if stride > 0 { (0, length) } else { (-1, length - 1) };
    let place =
        |bound: i64| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(lowest, highest);
    let first = from.map_or(if stride > 0 { lowest } else { highest }, place);
    let last = until.map_or(if stride > 0 { highest } else { lowest }, place);
    let mut picked = Vec::new();
    let mut at = first;
    while if stride > 0 { at < last } else { at > last } {
        picked.extend(usize::try_from(at).ok().and_then(|at| values.get(at)).cloned());
        at = at.saturating_add(stride);
    }
    picked
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(None, None, None, &[0, 1, 2, 3, 4])]
    #[case(Some(1), Some(3), None, &[1, 2])]
    #[case(Some(-2), None, None, &[3, 4])]
    #[case(None, Some(-1), None, &[0, 1, 2, 3])]
    #[case(None, None, Some(-1), &[4, 3, 2, 1, 0])]
    #[case(Some(3), Some(0), Some(-2), &[3, 1])]
    #[case(None, Some(1), Some(-1), &[4, 3, 2])]
    #[case(Some(-9), Some(99), Some(2), &[0, 2, 4])]
    #[case(Some(4), Some(2), None, &[])]
    #[case(Some(-4), Some(4), None, &[1, 2, 3])]
    fn slices_are_pythons(
        #[case] start: Option<i64>,
        #[case] stop: Option<i64>,
        #[case] step: Option<i64>,
        #[case] expected: &[i64],
    ) {
        let values: Vec<Value> = (0..5).map(|n| json!(n)).collect();
        let expected: Vec<Value> = expected.iter().map(|n| json!(n)).collect();
        assert_eq!(slice(values, start, stop, step), expected);
    }
}
