//! All routes of one listener, arranged so that a lookup costs one hash per kind of host pattern,
//! however many routes there are.

use super::{HostPattern, PathPattern};
use crate::message::Fields;
use hashbrown::HashTable;
use http::{HeaderName, HeaderValue, Method};
use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    ops::Range,
    sync::Arc,
};

/// When a route applies; what is absent applies always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Host of the request.
    pub host: Option<HostPattern>,
    /// Path of the request.
    pub path: Option<PathPattern>,
    /// One of these; any where empty.
    pub methods: Vec<Method>,
    /// All of these, with exactly these values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The port that clients ask for, which whoever makes the table sees to: a route that names it is
    /// more specific than one that does not.
    pub has_port: bool,
    /// One protocol, as little looked at here: a route for that is more specific than one for any.
    pub has_protocol: bool,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// In lower case, without port.
    pub host: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// Method of the request.
    pub method: &'a Method,
    /// Header fields as the client sent them.
    pub fields: &'a Fields,
}

/// What the patterns of a route captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures(Vec<(Arc<str>, Box<str>)>);

impl Captures {
    /// The text captured under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, text)| &**text)
    }

    /// All of them, in the order of the pattern.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (&**name, &**text))
    }
}

/// The route that applies.
#[derive(Debug, PartialEq, Eq)]
pub struct Match {
    /// The number it was added with.
    pub route: usize,
    /// What its patterns captured.
    pub captures: Captures,
}

/// Two routes that apply to the same requests with the same precedence: the second could never be
/// reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// Number of the earlier route.
    pub first: usize,
    /// Number of the unreachable one.
    pub second: usize,
}

/// All routes of one listener.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) exact: Exact,
    /// By suffix: `{vm}.suffix` and `*.suffix`.
    pub(super) suffix: HashMap<Box<str>, Vec<Candidate>>,
    pub(super) any: Vec<Candidate>,
}

/// Groups by exact host, in little memory: a host that is asked for seldom has to be fetched.
#[derive(Debug, Default)]
pub(super) struct Exact {
    groups: HashTable<(Range<u32>, Group)>,
    /// All hosts, one behind the other; those of the groups are ranges of it.
    hosts: Box<str>,
    hasher: RandomState,
}

/// The routes of one exact host.
#[derive(Debug)]
pub(super) enum Group {
    /// One, whatever the rest of the request is: there is nothing to look at.
    Always(usize),
    /// Several, or one that asks for more.
    Some(Box<[Candidate]>),
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) route: usize,
    pub(super) conditions: Conditions,
}

impl Table {
    /// Arranges the routes.
    ///
    /// # Errors
    /// Fails with every route that could never be reached because another has the same conditions.
    pub fn build(routes: impl IntoIterator<Item = (usize, Conditions)>) -> Result<Self, Vec<Duplicate>> {
        let mut table = Self::default();
        let mut exact: HashMap<Box<str>, Vec<Candidate>> = HashMap::new();
        for (route, conditions) in routes {
            let group = match &conditions.host {
                Some(HostPattern::Exact(name)) => exact.entry(name.clone()).or_default(),
                Some(HostPattern::Below(suffix) | HostPattern::Label { suffix, .. }) => {
                    table.suffix.entry(suffix.clone()).or_default()
                }
                None => &mut table.any,
            };
            group.push(Candidate { route, conditions });
        }
        let mut duplicates = Vec::new();
        for group in exact.values_mut().chain(table.suffix.values_mut()).chain([&mut table.any]) {
            group.sort_by(|a, b| b.rank().cmp(&a.rank()).then(a.route.cmp(&b.route)));
            duplicates.extend(duplicates_of(group));
        }
        table.exact = Exact::of(exact);
        if duplicates.is_empty() { Ok(table) } else { Err(duplicates) }
    }

    /// The most specific route that applies: exact host before suffix (the longest first) before
    /// none; within those, exact path before prefix (the longest first) before none; then the most
    /// conditions on headers and methods; then one that names the port, and one for one protocol.
    pub fn lookup(&self, question: Question<'_>) -> Option<Match> {
        self.exact
            .get(question.host)
            .and_then(|group| group.first_match(question))
            .or_else(|| self.lookup_suffix(question))
            .or_else(|| first_match(&self.any, question, None))
    }

    fn lookup_suffix(&self, question: Question<'_>) -> Option<Match> {
        if self.suffix.is_empty() {
            return None;
        }
        let mut rest = question.host;
        while let Some((_, suffix)) = rest.split_once('.') {
            let found = self.suffix.get(suffix).and_then(|group| {
                // What stands before the suffix, without its dot.
                let before = question.host.get(..question.host.len() - suffix.len() - 1)?;
                first_match(group, question, Some(before))
            });
            if found.is_some() {
                return found;
            }
            rest = suffix;
        }
        None
    }
}

impl Exact {
    fn of(groups: HashMap<Box<str>, Vec<Candidate>>) -> Self {
        let mut exact = Self { groups: HashTable::with_capacity(groups.len()), ..Self::default() };
        let mut hosts = String::new();
        for (host, group) in groups {
            let start = hosts.len();
            hosts.push_str(&host);
            // A configuration of four gigabytes could not be read.
            let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(hosts.len())) else { break };
            let hash = exact.hasher.hash_one(&*host);
            let rehash = |(range, _): &(Range<u32>, Group)| exact.hasher.hash_one(slice(&hosts, range));
            exact.groups.insert_unique(hash, (start..end, Group::of(group)), rehash);
        }
        exact.hosts = hosts.into();
        exact
    }

    fn get(&self, host: &str) -> Option<&Group> {
        if self.groups.is_empty() {
            return None;
        }
        let is_it = |(range, _): &(Range<u32>, Group)| slice(&self.hosts, range) == host;
        self.groups.find(self.hasher.hash_one(host), is_it).map(|(_, group)| group)
    }

    /// All groups, with their hosts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(range, group)| (slice(&self.hosts, range), group))
    }
}

fn slice<'a>(hosts: &'a str, range: &Range<u32>) -> &'a str {
    hosts.get(range.start as usize..range.end as usize).unwrap_or_default()
}

impl Group {
    fn of(candidates: Vec<Candidate>) -> Self {
        match candidates.as_slice() {
            [Candidate { route, conditions: Conditions { path: None, methods, headers, .. } }]
                if methods.is_empty() && headers.is_empty() =>
            {
                Self::Always(*route)
            }
            _ => Self::Some(candidates.into_boxed_slice()),
        }
    }

    fn first_match(&self, question: Question<'_>) -> Option<Match> {
        match self {
            Self::Always(route) => Some(Match { route: *route, captures: Captures::default() }),
            Self::Some(candidates) => first_match(candidates, question, None),
        }
    }
}

/// See [`Candidate::rank`].
pub(super) type Rank = (bool, Option<(bool, usize, usize)>, usize, bool, bool, bool);

impl Candidate {
    /// Greater is more specific, within one group of hosts.
    pub(super) fn rank(&self) -> Rank {
        let conditions = &self.conditions;
        (
            matches!(conditions.host, Some(HostPattern::Label { .. })),
            conditions.path.as_ref().map(PathPattern::rank),
            conditions.headers.len(),
            !conditions.methods.is_empty(),
            conditions.has_port,
            conditions.has_protocol,
        )
    }

    fn matches(&self, question: Question<'_>, before_suffix: Option<&str>) -> Option<Captures> {
        let Conditions { host, path, .. } = &self.conditions;
        let mut captures = Captures::default();
        if let (Some(HostPattern::Label { capture, .. }), Some(before)) = (host, before_suffix) {
            if before.contains('.') {
                return None;
            }
            captures.0.push((Arc::clone(capture), before.into()));
        }
        let path_matches = path.as_ref().is_none_or(|path| {
            path.matches(question.path, |name, text| captures.0.push((Arc::clone(name), text.into())))
        });
        let applies = path_matches && self.takes_method(question) && self.missed_header(question).is_none();
        applies.then_some(captures)
    }

    pub(super) fn takes_method(&self, question: Question<'_>) -> bool {
        let methods = &self.conditions.methods;
        methods.is_empty() || methods.contains(question.method)
    }

    /// The first header that the request does not have with this value.
    pub(super) fn missed_header(&self, question: Question<'_>) -> Option<&HeaderName> {
        let misses = |(name, value): &&(HeaderName, HeaderValue)| {
            question.fields.get_named(name.as_str().as_bytes()) != Some(value.as_bytes())
        };
        self.conditions.headers.iter().find(misses).map(|(name, _)| name)
    }
}

fn first_match(group: &[Candidate], question: Question<'_>, before_suffix: Option<&str>) -> Option<Match> {
    group.iter().find_map(|candidate| {
        let captures = candidate.matches(question, before_suffix)?;
        Some(Match { route: candidate.route, captures })
    })
}

/// Candidates are sorted, so those with the same conditions have the same rank and stand together;
/// within such a run a table of shapes finds the second of each.
fn duplicates_of(group: &[Candidate]) -> Vec<Duplicate> {
    let mut seen: HashMap<Shape<'_>, usize> = HashMap::new();
    let mut duplicates = Vec::new();
    for candidate in group {
        match seen.entry(Shape::of(&candidate.conditions)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                duplicates.push(Duplicate { first: *first.get(), second: candidate.route });
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(candidate.route);
            }
        }
    }
    duplicates
}

/// Conditions, apart from the names of captures.
#[derive(PartialEq, Eq, Hash)]
struct Shape<'a> {
    captures_label: bool,
    path: Option<Cow<'a, str>>,
    methods: Vec<&'a str>,
    headers: Vec<(&'a str, &'a [u8])>,
    has_port: bool,
    has_protocol: bool,
}

impl<'a> Shape<'a> {
    fn of(conditions: &'a Conditions) -> Self {
        let mut methods: Vec<_> = conditions.methods.iter().map(Method::as_str).collect();
        methods.sort_unstable();
        let mut headers: Vec<_> =
            conditions.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        headers.sort_unstable();
        Self {
            captures_label: matches!(conditions.host, Some(HostPattern::Label { .. })),
            path: conditions.path.as_ref().map(|path| Cow::Owned(path.shape())),
            methods,
            headers,
            has_port: conditions.has_port,
            has_protocol: conditions.has_protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(host: &str, path: &str, method: &str) -> Conditions {
        Conditions {
            host: (!host.is_empty()).then(|| HostPattern::parse(host).expect("a host")),
            path: (!path.is_empty()).then(|| PathPattern::parse(path).expect("a path")),
            methods: method.parse().into_iter().filter(|_| !method.is_empty()).collect(),
            ..Conditions::default()
        }
    }

    fn table(routes: &[(&str, &str, &str)]) -> Result<Table, Vec<Duplicate>> {
        Table::build(
            routes.iter().enumerate().map(|(i, (host, path, method))| (i, conditions(host, path, method))),
        )
    }

    #[track_caller]
    fn check(table: &Table, host: &str, path: &str, expected: Option<usize>) -> Captures {
        let question = Question { host, path, method: &Method::GET, fields: &Fields::new() };
        let found = table.lookup(question);
        assert_eq!(found.as_ref().map(|found| found.route), expected, "{host}{path}");
        found.map(|found| found.captures).unwrap_or_default()
    }

    #[test]
    fn the_most_specific_route_wins() {
        let table = table(&[
            ("", "", ""),
            ("", "/api/*", ""),
            ("", "/api/v1", ""),
            ("a.example.com", "", ""),
            ("a.example.com", "/api/*", "POST"),
            ("*.example.com", "", ""),
            ("{vm}.example.com", "", ""),
            ("*.deep.example.com", "", ""),
        ])
        .expect("a table");
        check(&table, "other", "/", Some(0));
        check(&table, "other", "/api/x", Some(1));
        check(&table, "other", "/api/v1", Some(2));
        check(&table, "a.example.com", "/", Some(3));
        check(&table, "a.example.com", "/api/x", Some(3));
        let captures = check(&table, "b.example.com", "/", Some(6));
        assert_eq!(captures.get("vm"), Some("b"));
        check(&table, "x.b.example.com", "/", Some(5));
        check(&table, "x.deep.example.com", "/", Some(7));
        check(&table, "example.com", "/", Some(0));
    }

    #[test]
    fn of_thousands_of_hosts_each_is_found() {
        let hosts: Vec<String> = (0..5_000).map(|n| format!("{n}.example.com")).collect();
        let routes: Vec<_> = hosts.iter().map(|host| (host.as_str(), "", "")).collect();
        let table = table(&routes).expect("a table");
        for (number, host) in hosts.iter().enumerate() {
            check(&table, host, "/", Some(number));
        }
        check(&table, "5000.example.com", "/", None);
        check(&table, ".example.com", "/", None);
    }

    #[test]
    fn without_a_match() {
        let table = table(&[("a", "/x", "")]).expect("a table");
        check(&table, "a", "/y", None);
        check(&table, "b", "/x", None);
    }

    #[test]
    fn unreachable_routes_are_found() {
        let duplicates =
            table(&[("a", "/u/{id}", ""), ("b", "", ""), ("a", "/u/{user}", "")]).expect_err("duplicates");
        assert_eq!(duplicates, [Duplicate { first: 0, second: 2 }]);
        assert!(table(&[("a", "/u", "GET"), ("a", "/u", "")]).is_ok());
        let with_port = Conditions { has_port: true, ..conditions("a", "/u", "") };
        let table = Table::build([(0, conditions("a", "/u", "")), (1, with_port)]).expect("no duplicates");
        check(&table, "a", "/u", Some(1));
    }
}
