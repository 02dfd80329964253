//! Patterns of hosts and paths, and the table of routes: what it finds is what looking at every
//! route would find.

use http::Method;
use vers_gateway::{
    message::Fields,
    route::{Conditions, HostPattern, PathPattern, Question, Table},
};

/// Panics where a rule is broken. The first line is `HOST PATH` of a question, each other one the
/// patterns of a route; an empty one matches all.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n').map(|line| line.split_once(' ').unwrap_or((line, "")));
    let Some((host, path)) = lines.next() else { return };
    // As `authority` and the parser of requests leave them.
    let host = host.to_ascii_lowercase();
    let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if !is_host || !path.starts_with('/') || path.contains('?') {
        return;
    }
    let routes: Vec<Route> = lines.take(8).filter_map(|(host, path)| Route::parse(host, path)).collect();
    asked(&host, path, &routes);
}

/// A route as it was written, and as it was understood.
pub(crate) struct Route {
    host: String,
    path: String,
    conditions: Conditions,
}

impl Route {
    /// None where a pattern is none.
    pub(crate) fn parse(host: &str, path: &str) -> Option<Self> {
        let host_pattern = if host.is_empty() { None } else { Some(HostPattern::parse(host).ok()?) };
        let path_pattern = if path.is_empty() { None } else { Some(PathPattern::parse(path).ok()?) };
        let conditions = Conditions { host: host_pattern, path: path_pattern, ..Conditions::default() };
        let lower = host.to_ascii_lowercase();
        let host = lower.strip_suffix('.').unwrap_or(&lower).to_owned();
        Some(Self { host, path: path.to_owned(), conditions })
    }

    /// How specific it is, where it matches; greater is more.
    fn rank(&self, host: &str, path: &str) -> Option<impl Ord + use<>> {
        let (kind, suffix) = match self.host.split_once('.') {
            _ if self.host.is_empty() => (0, 0),
            Some((first, suffix)) if first == "*" || first.starts_with('{') => {
                let before = host.strip_suffix(suffix)?.strip_suffix('.')?;
                let is_label = first != "*";
                if is_label && before.contains('.') {
                    return None;
                }
                (1, 2 * suffix.len() + usize::from(is_label))
            }
            _ if self.host == host => (2, 0),
            _ => return None,
        };
        if self.path.is_empty() {
            return Some((kind, suffix, None));
        }
        let (fixed, is_open) = match self.path.strip_suffix("/*") {
            Some(fixed) => (fixed, true),
            None => (self.path.as_str(), false),
        };
        let (wanted, asked): (Vec<_>, Vec<_>) = (fixed.split('/').collect(), path.split('/').collect());
        let fits = if is_open { asked.len() > wanted.len() } else { asked.len() == wanted.len() };
        let is_capture = |segment: &str| segment.starts_with('{');
        let same = |(wanted, asked): (&&str, &&str)| {
            if is_capture(wanted) { !asked.is_empty() } else { wanted == asked }
        };
        if !fits || !wanted.iter().zip(&asked).all(same) {
            return None;
        }
        let segments = wanted.len() - 1;
        let captures = wanted.iter().filter(|segment| is_capture(segment)).count();
        Some((kind, suffix, Some((!is_open, segments, segments - captures))))
    }
}

/// Panics where the table finds another route than a look at all of them.
pub(crate) fn asked(host: &str, path: &str, routes: &[Route]) {
    let conditions = routes.iter().map(|route| route.conditions.clone());
    let fields = Fields::new();
    let question = Question { host, path, method: &Method::GET, fields: &fields };
    match Table::build(conditions.enumerate()) {
        Ok(table) => {
            let found = table.lookup(question);
            let mut best = None;
            for (number, route) in routes.iter().enumerate() {
                let rank = route.rank(host, path);
                if rank.is_some() && best.as_ref().is_none_or(|(_, known)| rank > *known) {
                    best = Some((number, rank));
                }
            }
            let patterns: Vec<_> = routes.iter().map(|route| (&route.host, &route.path)).collect();
            let expected = best.map(|(number, _)| number);
            assert_eq!(found.as_ref().map(|found| found.route), expected, "{host} {path} of {patterns:?}");
            for (_, captured) in found.iter().flat_map(|found| found.captures.iter()) {
                assert!(!captured.contains('/') && (host.contains(captured) || path.contains(captured)));
            }
        }
        Err(duplicates) => {
            for duplicate in duplicates {
                let [first, second] = [duplicate.first, duplicate.second].map(|number| &routes[number]);
                assert!(first.rank(host, path) == second.rank(host, path), "{host} {path}");
            }
        }
    }
}
