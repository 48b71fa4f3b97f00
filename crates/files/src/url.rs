//! Which web addresses may be opened for another compartment.
//!
//! They become one argument of a browser. So they have a scheme of the web, printable ASCII only, and
//! nothing that a shell, a desktop file or a terminal would act on if a handler passed it on carelessly.

use crate::limits::MAX_URL;

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `http` nor `https`.
    #[error("only addresses that begin with http:// or https:// are opened")]
    Scheme,
    /// More than [`MAX_URL`] bytes.
    #[error("the address is longer than {MAX_URL} bytes")]
    Long,
    /// A character that stands in no address unless it is written as `%…`.
    #[error("the address has a character in it that must be written as %…")]
    Character,
    /// Nothing behind `//`, or a name and password before the host.
    #[error("the address names no host, or a user")]
    Host,
}

/// Checks an address.
///
/// # Errors
/// See [`UrlError`].
pub fn check(text: &str) -> Result<&str, UrlError> {
    if text.len() > MAX_URL {
        return Err(UrlError::Long);
    }
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let rest = ["https://", "http://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let rest = rest.and_then(|scheme| text.get(scheme.len()..)).ok_or(UrlError::Scheme)?;
    // RFC 3986, appendix A, less the quote, which shells know.
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&()*+,;=%".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err(UrlError::Character);
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    if host.is_empty() || host.starts_with(':') || host.contains('@') {
        return Err(UrlError::Host);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_web_pass_and_nothing_else() {
        for good in [
            "https://example.org",
            "http://example.org:8080/a?b=c&d=%20#e",
            "HTTPS://[::1]/",
            "https://xn--mller-kva.example/(x)",
        ] {
            assert_eq!(check(good), Ok(good));
        }
        for bad in
            ["", "file:///etc/passwd", "javascript:alert(1)", "-https://a", "ftp://a", "https:/"]
        {
            assert_eq!(check(bad), Err(UrlError::Scheme), "{bad}");
        }
        for bad in [
            "https://a b",
            "https://a\n",
            "https://a'b",
            "https://a`b",
            "https://ü",
            "http://a\u{1b}",
        ] {
            assert_eq!(check(bad), Err(UrlError::Character), "{bad:?}");
        }
        for bad in ["https://", "https:///x", "https://:80/", "https://paypal.com@evil.example/"] {
            assert_eq!(check(bad), Err(UrlError::Host), "{bad}");
        }
        assert_eq!(check(&format!("https://{}", "a".repeat(MAX_URL))), Err(UrlError::Long));
    }
}
