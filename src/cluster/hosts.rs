//! Where each process listens: a file with one `host:port` per line, the first that of process 0.
//!
//! What must stay true: no address that others can reach is used without a secret.

use std::net::IpAddr;

use super::{ClusterError, Params};

/// An address for each process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Reads `[cluster] hosts`.
    pub fn read(params: &Params) -> Result<Self, ClusterError> {
        let shown = params.hosts.display();
        let stop =
            |what: String| ClusterError::Stop(format!("{what}; it has a line host:port for each process, process 0 first"));
        let text = std::fs::read_to_string(&params.hosts)
            .map_err(|e| stop(format!("cannot read the hosts file `{shown}` of [cluster]: {e}")))?;
        Self::parse(&text, params.processes, !params.secret.is_empty())
            .map_err(|what| stop(format!("the hosts file {shown} {what}")))
    }

    /// Of `processes` processes. Lines that begin with `#`, and empty ones, are left out.
    fn parse(text: &str, processes: usize, secret: bool) -> Result<Self, String> {
        let hosts: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(String::from).collect();
        if hosts.len() != processes {
            return Err(format!("has {} addresses for {processes} processes", hosts.len()));
        }
        for (process, host) in hosts.iter().enumerate() {
            let Some((name, _)) = host.rsplit_once(':').filter(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
            else {
                return Err(format!("has `{host}` for process {process}, which is not host:port"));
            };
            if hosts[..process].contains(host) {
                return Err(format!("has {host} twice"));
            }
            if !secret && !is_loopback(name) {
                return Err(format!(
                    "has {host}, which others can reach: set [cluster] secret (OVERDRIVE_CLUSTER__SECRET) to the same text everywhere"
                ));
            }
        }
        Ok(Self(hosts))
    }

    /// Where a process listens.
    pub fn of(&self, process: usize) -> &str {
        &self.0[process]
    }
}

fn is_loopback(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each_and_a_secret_where_others_can_reach_it() {
        let two = "# ours\n127.0.0.1:4100\n\n  localhost:4101 \n";
        let hosts = Hosts::parse(two, 2, false).expect("fine");
        assert_eq!((hosts.of(0), hosts.of(1)), ("127.0.0.1:4100", "localhost:4101"));
        Hosts::parse("[::1]:1\n127.0.0.2:1", 2, false).expect("loopback too");
        Hosts::parse("a:1\nb:1", 2, true).expect("with a secret");
        for (text, says) in [
            ("127.0.0.1:1", "has 1 addresses for 2 processes"),
            ("127.0.0.1:1\nb", "`b` for process 1, which is not host:port"),
            ("127.0.0.1:1\nb:x", "is not host:port"),
            ("127.0.0.1:1\n127.0.0.1:1", "twice"),
            ("127.0.0.1:1\n0.0.0.0:2", "has 0.0.0.0:2, which others can reach: set [cluster] secret"),
            ("10.0.0.1:1\n127.0.0.1:2", "others can reach"),
            ("localhost.example.org:1\n127.0.0.1:2", "others can reach"),
        ] {
            let refused = Hosts::parse(text, 2, false).expect_err(text);
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
