//! Task instances and their tries.

mod changes;
mod reading;
mod show;

use axum::http::Method;

use self::reading::TaskDependencyCollectionResponse;
use self::show::{
    TaskInstanceCollectionResponse, TaskInstanceHistoryCollectionResponse, TaskInstanceHistoryResponse,
    TaskInstanceResponse,
};
use crate::{
    endpoint::Endpoint,
    inputs::{Field, int},
};

pub(super) use self::show::collection_of;

const AT_INDEX: &[Field] = &[int("map_index", -1, -1)];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tag = "Task Instance";
    let all = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances";
    let one = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}";
    let at = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}";
    vec![
        Endpoint::new(Method::GET, all, "get_task_instances", reading::list)
            .about(tag, "Lists the task instances of a run; ~ stands for all DAGs or runs.")
            .query(reading::LIST)
            .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::POST,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/list",
            "get_task_instances_batch",
            reading::batch,
        )
        .about(tag, "Lists the task instances of several runs.")
        .body(reading::BATCH)
        .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(Method::GET, one, "get_task_instance", reading::get)
            .about(tag, "Gives a task instance that is not mapped.")
            .answers::<TaskInstanceResponse>(),
        Endpoint::new(Method::PATCH, one, "patch_task_instance", changes::patch)
            .about(tag, "Marks a task instance, or sets its note.")
            .query(changes::PATCH_QUERY)
            .body(changes::PATCH)
            .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::PATCH,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dry_run",
            "patch_task_instance_dry_run",
            changes::patch_dry_run,
        )
        .about(tag, "Says what a mark would change.")
        .query(changes::PATCH_QUERY)
        .body(changes::PATCH)
        .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/listMapped",
            "get_mapped_task_instances",
            reading::list_mapped,
        )
        .about(tag, "Lists the instances of a mapped task.")
        .query(reading::LIST)
        .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries",
            "get_task_instance_tries",
            reading::tries,
        )
        .about(tag, "Lists the tries of a task instance.")
        .query(AT_INDEX)
        .answers::<TaskInstanceHistoryCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries/{task_try_number}",
            "get_task_instance_try_details",
            reading::try_details,
        )
        .about(tag, "Gives a try of a task instance.")
        .query(AT_INDEX)
        .answers::<TaskInstanceHistoryResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dependencies",
            "get_task_instance_dependencies",
            reading::dependencies,
        )
        .about(tag, "Says what keeps a task instance from starting.")
        .query(AT_INDEX)
        .answers::<TaskDependencyCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/dependencies",
            "get_task_instance_dependencies_by_map_index",
            reading::dependencies,
        )
        .about(tag, "Says what keeps a mapped task instance from starting.")
        .answers::<TaskDependencyCollectionResponse>(),
        Endpoint::new(Method::GET, at, "get_mapped_task_instance", reading::get_mapped)
            .about(tag, "Gives a mapped task instance.")
            .answers::<TaskInstanceResponse>(),
        Endpoint::new(Method::PATCH, at, "patch_task_instance_by_map_index", changes::patch)
            .about(tag, "Marks a mapped task instance, or sets its note.")
            .query(changes::MASK)
            .body(changes::PATCH)
            .answers::<TaskInstanceCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/tries",
            "get_mapped_task_instance_tries",
            reading::tries,
        )
        .about(tag, "Lists the tries of a mapped task instance.")
        .answers::<TaskInstanceHistoryCollectionResponse>(),
        Endpoint::new(
            Method::GET,
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/tries/{task_try_number}",
            "get_mapped_task_instance_try_details",
            reading::try_details,
        )
        .about(tag, "Gives a try of a mapped task instance.")
        .answers::<TaskInstanceHistoryResponse>(),
        Endpoint::new(
            Method::POST,
            "/api/v2/dags/{dag_id}/clearTaskInstances",
            "post_clear_task_instances",
            changes::clear,
        )
        .about(tag, "Runs task instances again, or says which would run again.")
        .body(changes::CLEAR)
        .answers::<TaskInstanceCollectionResponse>(),
    ]
}
