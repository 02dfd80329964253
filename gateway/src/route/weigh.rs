//! Why a request goes where it goes: what each route of a table says to it. For people who ask, not for traffic.

use super::{
    HostPattern, Question, Table,
    table::{Candidate, Group},
};
use http::HeaderName;

/// A route, and what it says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// Its number.
    pub route: usize,
    /// What it says.
    pub weight: Weight,
}

/// What a route says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weight {
    /// It is the one.
    Taken,
    /// It would take it, but another is more specific, by this.
    LessSpecific(Precedence),
    /// It is for other requests, by this.
    Differs(Condition),
}

/// A condition of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Its host.
    Host,
    /// Its path.
    Path,
    /// Its methods.
    Method,
    /// This of its headers.
    Header(HeaderName),
}

/// What decides between two routes that both apply, in the order in which it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// An exact host before one label of a suffix, before all below a suffix, the longest first, before none.
    Host,
    /// An exact path before a prefix, the longest first, before none.
    Path,
    /// More headers before fewer.
    Headers,
    /// Methods before none.
    Methods,
    /// A port before none.
    Port,
    /// One protocol before any.
    Protocol,
    /// Whatever differs otherwise: which was written first.
    Order,
}

impl Table {
    /// What each route of the table says to a request: the one that [`Self::lookup`] finds first, then those that are
    /// less specific, then the others.
    pub fn weigh(&self, question: Question<'_>) -> Vec<Weighed> {
        let taken = self.lookup(question).map(|found| found.route);
        let mut seen = Vec::new();
        for (host, group) in self.exact.iter() {
            let is_it = host == question.host;
            match group {
                Group::Always(route) => seen.push((*route, None, (!is_it).then_some(Condition::Host))),
                Group::Some(group) => {
                    seen.extend(group.iter().map(|candidate| {
                        (candidate.route, Some(candidate), candidate.differs(question, is_it))
                    }))
                }
            }
        }
        for (suffix, group) in &self.suffix {
            let before = question.host.strip_suffix(&**suffix).and_then(|before| before.strip_suffix('.'));
            seen.extend(group.iter().map(|candidate| {
                let is_one = !matches!(candidate.conditions.host, Some(HostPattern::Label { .. }));
                let is_it = before.is_some_and(|before| is_one || !before.contains('.'));
                (candidate.route, Some(candidate), candidate.differs(question, is_it))
            }));
        }
        seen.extend(
            self.any
                .iter()
                .map(|candidate| (candidate.route, Some(candidate), candidate.differs(question, true))),
        );
        let winner = seen.iter().find(|(route, ..)| Some(*route) == taken).and_then(|(_, winner, _)| *winner);
        let mut weighed: Vec<Weighed> = (seen.into_iter())
            .map(|(route, candidate, differs)| {
                let weight = match differs {
                    _ if Some(route) == taken => Weight::Taken,
                    Some(condition) => Weight::Differs(condition),
                    None => Weight::LessSpecific(Precedence::between(winner, candidate)),
                };
                Weighed { route, weight }
            })
            .collect();
        weighed.sort_by_key(|weighed| (weighed.weight.place(), weighed.route));
        weighed
    }
}

impl Weight {
    fn place(&self) -> u8 {
        match self {
            Self::Taken => 0,
            Self::LessSpecific(_) => 1,
            Self::Differs(_) => 2,
        }
    }
}

impl Candidate {
    /// The first condition that does not hold, where the host is, or is not, one of this route.
    fn differs(&self, question: Question<'_>, is_host: bool) -> Option<Condition> {
        let path = &self.conditions.path;
        if !is_host {
            Some(Condition::Host)
        } else if !path.as_ref().is_none_or(|path| path.matches(question.path, |_, _| {})) {
            Some(Condition::Path)
        } else if !self.takes_method(question) {
            Some(Condition::Method)
        } else {
            self.missed_header(question).cloned().map(Condition::Header)
        }
    }
}

impl Precedence {
    /// What the first has before the second. A route of an exact host that asks for nothing else is no candidate.
    fn between(winner: Option<&Candidate>, other: Option<&Candidate>) -> Self {
        let (Some(winner), Some(other)) = (winner, other) else { return Self::Host };
        let suffix = |candidate: &Candidate| match &candidate.conditions.host {
            Some(HostPattern::Exact(name)) => (2, name.len()),
            Some(HostPattern::Below(suffix) | HostPattern::Label { suffix, .. }) => (1, suffix.len()),
            None => (0, 0),
        };
        let (one, two) = (winner.rank(), other.rank());
        if suffix(winner) != suffix(other) || one.0 != two.0 {
            Self::Host
        } else if one.1 != two.1 {
            Self::Path
        } else if one.2 != two.2 {
            Self::Headers
        } else if one.3 != two.3 {
            Self::Methods
        } else if one.4 != two.4 {
            Self::Port
        } else if one.5 != two.5 {
            Self::Protocol
        } else {
            Self::Order
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Conditions, PathPattern},
        *,
    };
    use crate::message::Fields;
    use http::{HeaderValue, Method};

    fn conditions(host: &str, path: &str, method: &str, header: &'static str) -> Conditions {
        let value = HeaderValue::from_static("1");
        Conditions {
            host: (!host.is_empty()).then(|| HostPattern::parse(host).expect("a host")),
            path: (!path.is_empty()).then(|| PathPattern::parse(path).expect("a path")),
            methods: method.parse().into_iter().filter(|_| !method.is_empty()).collect(),
            headers: (!header.is_empty())
                .then(|| (HeaderName::from_static(header), value))
                .into_iter()
                .collect(),
            ..Conditions::default()
        }
    }

    #[test]
    fn each_route_says_why_it_is_not_the_one() {
        let table = Table::build(
            [
                conditions("", "", "", ""),
                conditions("a.example.com", "", "", ""),
                conditions("b.example.com", "", "", ""),
                conditions("*.example.com", "", "", ""),
                conditions("{vm}.example.com", "", "", ""),
                conditions("{vm}.example.com", "/api/*", "", ""),
                conditions("{vm}.example.com", "/api/v1", "POST", ""),
                conditions("{vm}.example.com", "/api/v1", "", "x-canary"),
                conditions("{vm}.example.com", "/api/v1", "", ""),
                conditions("{vm}.example.com", "/other", "", ""),
                conditions("{vm}.b.example.com", "", "", ""),
                conditions("*.c.example.com", "/x", "", ""),
            ]
            .into_iter()
            .enumerate(),
        )
        .expect("a table");
        let check = |host: &str, path: &str, method: Method, expected: &[(usize, Weight)]| {
            let fields = Fields::new();
            let question = Question { host, path, method: &method, fields: &fields };
            let weighed = table.weigh(question);
            assert_eq!(weighed.len(), 12, "all of them: {weighed:?}");
            for (route, weight) in expected {
                let found = weighed.iter().find(|weighed| weighed.route == *route).expect("the route");
                assert_eq!(found.weight, *weight, "{method} {host}{path}: route {route}");
            }
            let taken = weighed.first().filter(|weighed| weighed.weight == Weight::Taken);
            let found = table.lookup(question).map(|found| found.route);
            assert_eq!(taken.map(|weighed| weighed.route), found, "{method} {host}{path}");
        };
        use Weight::{Differs, LessSpecific, Taken};
        check(
            "vm.example.com",
            "/api/v1",
            Method::GET,
            &[
                (8, Taken),
                (7, Differs(Condition::Header(HeaderName::from_static("x-canary")))),
                (6, Differs(Condition::Method)),
                (5, LessSpecific(Precedence::Path)),
                (4, LessSpecific(Precedence::Path)),
                (3, LessSpecific(Precedence::Host)),
                (0, LessSpecific(Precedence::Host)),
                (9, Differs(Condition::Path)),
                (1, Differs(Condition::Host)),
                (10, Differs(Condition::Host)),
            ],
        );
        check(
            "vm.example.com",
            "/api/v1",
            Method::POST,
            &[(6, Taken), (8, LessSpecific(Precedence::Methods))],
        );
        check("a.example.com", "/", Method::GET, &[(1, Taken), (4, LessSpecific(Precedence::Host))]);
        check("x.b.example.com", "/", Method::GET, &[(10, Taken), (4, Differs(Condition::Host))]);
        check("x.y.c.example.com", "/", Method::GET, &[(3, Taken), (11, Differs(Condition::Path))]);
        check("elsewhere", "/", Method::GET, &[(0, Taken), (3, Differs(Condition::Host))]);
    }
}
