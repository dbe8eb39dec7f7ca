//! The OpenAPI document, made from the table of endpoints.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    api,
    endpoint::{Access, Endpoint},
    inputs::{Field, Kind, Preset, schema},
};

/// The OpenAPI 3.1 document of the API.
#[must_use]
pub fn openapi_document() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut schemas = Map::new();
    schemas.insert(
        "HTTPExceptionResponse".into(),
        json!({"type": "object", "required": ["detail"], "properties": {
            "detail": {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": true}]}}}),
    );
    schemas.insert(
        "HTTPValidationError".into(),
        json!({"type": "object", "properties": {"detail": {"type": "array", "items": {
            "type": "object", "required": ["loc", "msg", "type"], "properties": {
                "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                "msg": {"type": "string"}, "type": {"type": "string"}}}}}}),
    );
    for endpoint in api::endpoints() {
        let path = endpoint.path.replace("{*", "{");
        let method = endpoint.method.as_str().to_ascii_lowercase();
        if let Some(answer) = &endpoint.answer {
            schemas.insert(answer.name.clone(), answer.schema.clone());
            schemas.extend(answer.others.iter().cloned());
        }
        let operation = operation(&endpoint, &path);
        paths.entry(path).or_default().insert(method, operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gust API",
            "version": "2",
            "description": "Airflow's REST API as Gust serves it. All paths under /api/v2 take the requests and give \
                            the answers of Airflow 3.3.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"HTTPBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

fn operation(endpoint: &Endpoint, path: &str) -> Value {
    let segments = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = segments
        .map(|name| {
            let kind = if matches!(
                name,
                "map_index"
                    | "try_number"
                    | "task_try_number"
                    | "version_number"
                    | "import_error_id"
                    | "asset_id"
            ) {
                "integer"
            } else {
                "string"
            };
            json!({"name": name, "in": "path", "required": true, "schema": {"type": kind}})
        })
        .collect();
    parameters.extend(endpoint.shape.query.iter().map(|field| {
        json!({"name": field.name, "in": "query", "required": field.is_required, "schema": with_default(field)})
    }));
    let error = |name: &str, text: &str| {
        json!({"description": text, "content": {"application/json": {
            "schema": {"$ref": format!("#/components/schemas/{name}")}}}})
    };
    let mut responses = Map::new();
    let mut success = json!({"description": "Successful Response"});
    if let Some(answer) = &endpoint.answer {
        success["content"] = json!({"application/json": {
            "schema": {"$ref": format!("#/components/schemas/{}", answer.name)}}});
    }
    responses.insert(endpoint.status.to_string(), success);
    if endpoint.shape.access != Access::Public {
        responses.insert("401".into(), error("HTTPExceptionResponse", "Unauthorized"));
        responses.insert("403".into(), error("HTTPExceptionResponse", "Forbidden"));
    }
    if path.contains('{') {
        responses.insert("404".into(), error("HTTPExceptionResponse", "Not Found"));
    }
    responses.insert("422".into(), error("HTTPValidationError", "Validation Error"));
    let mut operation = json!({
        "operationId": endpoint.id,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(fields) = endpoint.shape.body {
        operation["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": body(fields)}},
        });
    }
    if endpoint.shape.access != Access::Public {
        operation["security"] = json!([{"HTTPBearer": []}]);
    }
    operation
}

fn with_default(field: &Field) -> Value {
    let mut schema = schema(field.kind);
    match field.default {
        Preset::Absent => {}
        Preset::Int(value) => schema["default"] = json!(value),
        Preset::Flag(value) => schema["default"] = json!(value),
    }
    schema
}

fn body(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let own = with_default(field);
            let shown = if matches!(field.kind, Kind::Any) || !matches!(field.default, Preset::Absent) {
                own
            } else {
                json!({"anyOf": [own, {"type": "null"}]})
            };
            (field.name.to_owned(), shown)
        })
        .collect();
    let required: Vec<&str> =
        fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
