//! What surrounds every page.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::static_files;
use crate::auth::{Identity, Proof};

/// Nothing inline, nothing from elsewhere, no frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Says that an answer is a page's content alone.
const FRAGMENT: HeaderName = HeaderName::from_static("x-gust-fragment");

/// The parts of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Dags,
    Assets,
    Pools,
    Variables,
    Connections,
    Health,
}

const SECTIONS: [(Section, &str, &str); 6] = [
    (Section::Dags, "/", "DAGs"),
    (Section::Assets, "/assets", "Assets"),
    (Section::Pools, "/pools", "Pools"),
    (Section::Variables, "/variables", "Variables"),
    (Section::Connections, "/connections", "Connections"),
    (Section::Health, "/health", "Health"),
];

/// One page.
pub(super) struct Page<'a> {
    /// Its title, without the site's name.
    pub title: &'a str,
    /// Where it belongs.
    pub section: Section,
    /// The address of the events after which its content is fetched again.
    pub events: Option<String>,
    /// Its content.
    pub body: Markup,
    /// What stays when the content changes: dialogs.
    pub fixed: Markup,
}

/// The page, or its content alone where a script asks to refresh it.
pub(super) fn respond(headers: &HeaderMap, who: &Identity, page: &Page<'_>) -> Response {
    let is_fragment =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/fragment"));
    let mut response = if is_fragment {
        let mut response = page.body.clone().into_response();
        response.headers_mut().insert(FRAGMENT, HeaderValue::from_static("1"));
        response
    } else {
        document(page, Some(who)).into_response()
    };
    let set = response.headers_mut();
    set.insert(header::VARY, HeaderValue::from_static("Accept"));
    set.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}

/// A page for an error, on which nobody is known.
pub(super) fn bare(title: &str, body: &Markup) -> Response {
    let page =
        Page { title, section: Section::Dags, events: None, body: body.clone(), fixed: Markup::default() };
    ([(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)], document(&page, None)).into_response()
}

fn document(page: &Page<'_>, who: Option<&Identity>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="csrf" content=(who.map_or("", Identity::csrf));
                title { (page.title) " · Gust" }
                link rel="icon" href=(static_files::url("favicon.svg"));
                link rel="stylesheet" href=(static_files::url("gust.css"));
                script src=(static_files::url("theme.js")) {}
                script type="module" src=(static_files::url("app.js")) {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header.top {
                    a.brand href="/" aria-label="Gust, all DAGs" { (logo()) span { "Gust" } }
                    nav aria-label="Site" {
                        @for (section, href, name) in SECTIONS {
                            a href=(href) aria-current=[(section == page.section).then_some("page")] { (name) }
                        }
                    }
                    div.right {
                        @if page.events.is_some() { span.live role="img" aria-label="Live updates" {} }
                        span.clock.nowrap {}
                        button.quiet type="button" data-theme-toggle aria-label="Light or dark" { "◐" }
                        @if let Some(who) = who.filter(|who| matches!(who.proof, Proof::Cookie { .. }) && who.user != "Anonymous") {
                            form method="post" action="/auth/logout" {
                                input type="hidden" name="csrf" value=(who.csrf());
                                button.quiet title="Sign out" { (who.user) }
                            }
                        }
                    }
                }
                main #main tabindex="-1" data-events=[page.events.as_deref()] { (page.body) }
                (page.fixed)
            }
        }
    }
}

fn logo() -> Markup {
    html! {
        svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" aria-hidden="true" {
            path d="M2 9h11a3 3 0 1 0-3-3" {}
            path d="M2 13h16a3.2 3.2 0 1 1-3.2 3.2" {}
            path d="M2 17h7a2.4 2.4 0 1 1-2.4 2.4" {}
        }
    }
}

/// The way to a page: names with addresses.
pub(super) fn crumbs(steps: &[(&str, String)]) -> Markup {
    html! {
        nav.crumbs aria-label="Path" {
            @for (at, (name, href)) in steps.iter().enumerate() {
                @if at > 0 { span aria-hidden="true" { "/" } }
                a href=(href) { (name) }
            }
        }
    }
}
