//! Lets requests pass that carry a user's name and password (RFC 7617).

use data_encoding::BASE64;
use std::collections::BTreeMap;
use vers_plugin::prelude::*;

/// Lets requests pass that carry a user's name and password.
#[derive(Debug, Deserialize, ConfigSchema)]
#[serde(deny_unknown_fields)]
struct BasicAuth {
    /// Users, each with the name of the secret that is the password.
    users: BTreeMap<String, String>,
    /// Shown to the user by browsers.
    #[serde(default = "realm")]
    realm: String,
    /// The header that tells the backend who it is; what clients send in it goes.
    user_header: Option<String>,
    /// Paths that need no password.
    #[serde(default)]
    exempt: Vec<PathPattern>,
}

impl HttpFilter for BasicAuth {
    fn on_request(&self, req: &mut Request) -> Verdict {
        if let Some(header) = &self.user_header {
            req.remove_header(header);
        }
        if self.exempt.iter().any(|paths| paths.covers(req.path())) {
            return Verdict::Next;
        }
        let Some((user, password)) = credentials(req) else { return self.refuse("missing-password") };
        // Who there is takes no longer to find out than whose password is wrong.
        let secret = self.users.get(&user).or(self.users.values().next()).map(String::as_str);
        let is_right = secret.is_some_and(|secret| secrets::matches(secret, &password));
        if !is_right || !self.users.contains_key(&user) {
            return self.refuse("wrong-password");
        }
        if let Some(header) = &self.user_header {
            req.set_header(header, user);
        }
        Verdict::Next
    }

    fn validate(&self, problems: &mut Problems) {
        if self.users.is_empty() {
            problems.add("users", "empty: nobody could pass");
        }
        let is_user =
            |user: &str| !user.is_empty() && !user.contains(|char: char| char == ':' || char.is_control());
        for user in self.users.keys().filter(|user| !is_user(user)) {
            problems.add(
                format!("users.{user}"),
                "a name has no colon and no control characters, and is not empty",
            );
        }
        let is_quotable = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        if !self.realm.bytes().all(is_quotable) {
            problems.add("realm", "expected printable ASCII without quotes and backslashes");
        }
        if let Some(Err(error)) = self.user_header.as_deref().map(vers_plugin::headers::check_name) {
            problems.add("user_header", error.to_string());
        }
        for (i, _) in self.exempt.iter().enumerate().filter(|(_, paths)| paths.covers_all()) {
            problems.add(format!("exempt.{i}"), "exempts every path; take the plugin off the route instead");
        }
    }
}
vers_plugin::export!(BasicAuth: request_filter);

impl BasicAuth {
    fn refuse(&self, reason: &str) -> Verdict {
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm);
        Reply::new(401).header("www-authenticate", challenge).text("unauthorized\n").reason(reason).into()
    }
}

/// User and password of the only `authorization` (§2). Two could mean one thing here and another to the
/// backend.
fn credentials(req: &Request) -> Option<(String, Vec<u8>)> {
    let values = req.headers().get_all("authorization");
    let [value] = values.as_slice() else { return None };
    let (scheme, rest) = value.split_at_checked("basic".len())?;
    let encoded = rest.strip_prefix(b" ")?.trim_ascii();
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = BASE64.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
}

fn realm() -> String {
    "gateway".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vers_plugin::testing::{self, MockHost};

    fn status(plugin: &BasicAuth, authorization: &[&str]) -> u16 {
        let request = testing::request("GET", "/");
        let mut req =
            authorization.iter().fold(request, |it, value| it.header("authorization", *value)).build();
        plugin.on_request(&mut req).reply().map_or(200, |reply| reply.status)
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode(text.as_bytes()))
    }

    #[test]
    fn only_the_right_password_passes() {
        let _host = MockHost::new().secret("ann", "s3c:ret").secret("bob", "");
        let plugin: BasicAuth =
            testing::configure("users = { ann = 'ann', bob = 'bob' }").expect("a good table");
        assert_eq!(status(&plugin, &[&basic("ann:s3c:ret")]), 200);
        assert_eq!(status(&plugin, &[&basic("ann:s3c:ret").replace("Basic", "bAsIc")]), 200);
        for wrong in ["ann:", "ann", "ann:s3c", "Ann:s3c:ret", "eve:s3c:ret", ":s3c:ret", "bob:", ""] {
            assert_eq!(status(&plugin, &[&basic(wrong)]), 401, "{wrong:?}");
        }
        for wrong in ["", "Basic", "Basic ", "Basic !!", "Bearer abc", "Basicabc"] {
            assert_eq!(status(&plugin, &[wrong]), 401, "{wrong:?}");
        }
        assert_eq!(status(&plugin, &[&basic("ann:s3c:ret"), &basic("ann:s3c:ret")]), 401, "two are none");
    }

    #[test]
    fn the_backend_learns_who_it_is_and_cannot_be_lied_to() {
        let _host = MockHost::new().secret("ann", "s3cret");
        let table = "users = { ann = 'ann' }\nuser_header = 'x-user'\nexempt = ['/health']";
        let plugin: BasicAuth = testing::configure(table).expect("a good table");
        let request = |path| testing::request("GET", path).header("x-user", "root").header("X_User", "root");
        let mut req = request("/").header("authorization", basic("ann:s3cret")).build();
        assert_eq!(plugin.on_request(&mut req), Verdict::Next);
        assert_eq!(req.headers().get_all("x-user"), [b"ann".to_vec()]);
        assert_eq!(req.header("x_user"), None, "what backends read as the same");
        let mut req = request("/health").build();
        assert_eq!(plugin.on_request(&mut req), Verdict::Next);
        assert_eq!((req.header("x-user"), req.header("x_user")), (None, None));
    }

    #[test]
    fn mistakes() {
        for (table, path) in [
            ("users = {}", "users"),
            ("users = { 'a:b' = 's' }", "users.a:b"),
            ("users = { a = 's' }\nrealm = '\"'", "realm"),
            ("users = { a = 's' }\nuser_header = 'host'", "user_header"),
            ("users = { a = 's' }\nexempt = ['/*']", "exempt.0"),
        ] {
            let problems = testing::configure::<BasicAuth>(table).expect_err(table);
            assert_eq!(problems[0].path, path, "{problems:?}");
        }
    }
}
