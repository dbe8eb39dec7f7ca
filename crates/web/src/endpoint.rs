use std::sync::Arc;

use axum::{Router, extract::Extension, handler::Handler, http::Method, routing::MethodFilter};
use serde_json::Value;
use utoipa::{PartialSchema, ToSchema};

use crate::{inputs::Field, state::AppState};

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a token.
    Public,
    /// Whoever may look.
    Read,
    /// Whoever may change things, or see what only they may see.
    Write,
}

/// What a request to an endpoint may hold.
#[derive(Debug)]
pub(crate) struct Shape {
    pub query: &'static [Field],
    pub body: Option<&'static [Field]>,
    pub access: Access,
}

/// Adds a route with its shape to a router.
type AddRoute = dyn FnOnce(Router<AppState>, &'static str, Arc<Shape>) -> Router<AppState> + Send;

/// One endpoint: its route and its description.
pub(crate) struct Endpoint {
    pub method: Method,
    /// The path in axum's form.
    pub path: &'static str,
    /// Airflow's operation id, by which its clients name it.
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub shape: Shape,
    pub status: u16,
    pub answer: Option<Answer>,
    route: Box<AddRoute>,
}

/// The schema of an answer, with those that it refers to.
pub(crate) struct Answer {
    pub name: String,
    pub schema: Value,
    pub others: Vec<(String, Value)>,
}

impl Endpoint {
    /// An endpoint whose access follows from its method.
    pub(crate) fn new<H, T>(method: Method, path: &'static str, id: &'static str, handler: H) -> Self
    where
        H: Handler<T, AppState> + Sync,
        T: 'static,
    {
        let access = if method == Method::GET { Access::Read } else { Access::Write };
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self {
            method,
            path,
            id,
            tag: "",
            summary: "",
            shape: Shape { query: &[], body: None, access },
            status: 200,
            answer: None,
            route: Box::new(move |router, path, shape| {
                router.route(path, axum::routing::on(filter, handler).layer(Extension(shape)))
            }),
        }
    }

    pub(crate) fn about(mut self, tag: &'static str, summary: &'static str) -> Self {
        (self.tag, self.summary) = (tag, summary);
        self
    }

    pub(crate) fn query(mut self, fields: &'static [Field]) -> Self {
        self.shape.query = fields;
        self
    }

    pub(crate) fn body(mut self, fields: &'static [Field]) -> Self {
        self.shape.body = Some(fields);
        self
    }

    pub(crate) fn access(mut self, access: Access) -> Self {
        self.shape.access = access;
        self
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn answers<T: ToSchema>(mut self) -> Self {
        let mut others = Vec::new();
        T::schemas(&mut others);
        let value = |schema: &utoipa::openapi::RefOr<utoipa::openapi::Schema>| {
            serde_json::to_value(schema).unwrap_or(Value::Null)
        };
        self.answer = Some(Answer {
            name: T::name().into_owned(),
            schema: value(&<T as PartialSchema>::schema()),
            others: others.iter().map(|(name, schema)| (name.clone(), value(schema))).collect(),
        });
        self
    }

    /// Adds the endpoint's route.
    pub(crate) fn add_to(self, router: Router<AppState>) -> Router<AppState> {
        (self.route)(router, self.path, Arc::new(self.shape))
    }
}
