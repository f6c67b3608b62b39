//! Editing requests behind the check of their signatures.
//!
//! An edited request no longer fits its signature. So the signed service takes it as it came, and where an
//! edit is attached, a route of that service gets it after the signature was checked and the body decoded,
//! edits it, and hands it to a second service that checks no signatures.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Request, Uri};
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3Request, S3Response, S3Result};

use super::action::Action;
use super::edit::{remove_headers, set_headers, with_query};
use super::rule::Rule;
use crate::access::Keys;
use crate::front::{internal_error, plain};
use crate::operation;

/// Attached to requests that are to be edited.
#[derive(Clone)]
pub(crate) struct Rewrite(Arc<Rule>);

impl Rewrite {
    /// `None` where the rule edits no requests.
    pub(super) fn of(rule: &Arc<Rule>) -> Option<Self> {
        let edits = rule.actions.iter().any(|action| {
            use Action::{RemoveQuery, RemoveRequestHeaders, SetQuery, SetRequestHeaders};
            matches!(
                action,
                SetRequestHeaders(_) | RemoveRequestHeaders(_) | SetQuery(_) | RemoveQuery(_)
            )
        });
        edits.then(|| Self(Arc::clone(rule)))
    }

    /// Edits a request.
    pub(crate) fn apply(&self, uri: &mut Uri, headers: &mut HeaderMap) {
        for action in &self.0.actions {
            match action {
                Action::SetRequestHeaders(pairs) => set_headers(headers, pairs),
                Action::RemoveRequestHeaders(names) => remove_headers(headers, names),
                Action::SetQuery(pairs) => *uri = with_query(uri, pairs, &[]),
                Action::RemoveQuery(names) => *uri = with_query(uri, &Vec::new(), names),
                _ => {}
            }
        }
    }
}

/// The way of edited requests.
pub(crate) struct Rewriting {
    /// The same store, without signatures.
    pub(crate) open: S3Service,
    pub(crate) keys: Keys,
}

#[async_trait::async_trait]
impl S3Route for Rewriting {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, extensions: &mut Extensions) -> bool {
        extensions.get::<Rewrite>().is_some()
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        let operation = operation::name_of(&request.method, &request.uri, &request.headers);
        let access_key = request.credentials.as_ref().map(|signed| signed.access_key.as_str());
        self.keys.allow(access_key, operation)
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let S3Request { input, method, mut uri, mut headers, mut extensions, .. } = request;
        uri = plain(&uri, &mut headers);
        if let Some(rewrite) = extensions.remove::<Rewrite>() {
            rewrite.apply(&mut uri, &mut headers);
        }
        if let Some(trailers) = request.trailing_headers {
            extensions.insert(trailers);
        }
        let mut edited = Request::new(input);
        (*edited.method_mut(), *edited.uri_mut()) = (method, uri);
        (*edited.headers_mut(), *edited.extensions_mut()) = (headers, extensions);
        let answer = self.open.call(edited).await;
        let (parts, body) =
            answer.unwrap_or_else(|error| internal_error(&error.into())).into_parts();
        let mut response = S3Response::new(body);
        (response.status, response.headers) = (Some(parts.status), parts.headers);
        Ok(response)
    }
}
