//! Where a state lies, as it is written in the settings.

use std::fmt::{Display, Formatter, Result as Written};
use std::path::{Path, PathBuf};

/// A folder of this machine, or an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Folder(PathBuf),
    /// `s3://bucket/prefix`. (Any other is empty and ends with the process: for tests.)
    Objects(String),
}

impl Address {
    /// Of `url`, or the folder `otherwise` where there is none. `Err`: what would be an address.
    pub fn parse(url: &str, otherwise: &Path) -> Result<Self, String> {
        match url.split_once("://") {
            None if url.is_empty() => Ok(Self::Folder(otherwise.to_path_buf())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Folder(PathBuf::from(path))),
            Some(("s3", place)) if !place.is_empty() && !place.starts_with('/') => Ok(Self::Objects(url.to_string())),
            _ => Err(format!("{url:?} is no place for state: write file:///a/folder or s3://bucket/prefix")),
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        match self {
            Self::Folder(dir) => dir.display().fmt(f),
            Self::Objects(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_folder_or_an_object_store() {
        let parse = |url| Address::parse(url, Path::new("here"));
        assert_eq!(parse(""), Ok(Address::Folder("here".into())));
        assert_eq!(parse("file:///a/folder"), Ok(Address::Folder("/a/folder".into())));
        for url in ["s3://bucket", "s3://bucket/a/prefix"] {
            assert_eq!(parse(url).map(|address| address.to_string()), Ok(url.to_string()));
        }
        for wrong in ["file://relative", "s4://x", "/a/folder", "memory://", "s3://", "s3:///x"] {
            assert!(parse(wrong).is_err_and(|what| what.contains("write file:///")), "{wrong}");
        }
    }
}
