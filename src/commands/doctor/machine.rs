//! What this machine has: processors, disk, clock, files, ports. Each check is one question and yields one finding.

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::config::Config;

const MIB: u64 = 1 << 20;

/// Every check of the machine.
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        processors(config.engine.workers, std::thread::available_parallelism().map_or(1, usize::from)),
        clock(SystemTime::now()),
        open_files(getrlimit(Resource::Nofile).current, config.service.connections),
        state_dir(&config.engine.state_dir),
        port("service port", &config.service.bind, config.service.port),
    ];
    if config.service.grpc {
        findings.push(grpc_port(&config.service.bind, config.service.grpc_port));
    }
    if config.metrics.port != 0 {
        findings.push(port("metrics port", &config.metrics.bind, config.metrics.port));
    }
    if !config.source.backfill.is_empty() {
        findings.push(backfill(Path::new(&config.source.backfill)));
    }
    findings
}

fn processors(workers: usize, there: usize) -> Finding {
    let found = format!("{there} for {workers} workers");
    match workers <= there {
        true => Finding::good("processors", found),
        false => Finding::note("processors", found, format!("workers wait for one another; set engine.workers to {there}")),
    }
}

/// An event's time is compared with this clock, and freshness is measured by it.
fn clock(now: SystemTime) -> Finding {
    const YEAR_2025: u64 = 1_735_689_600;
    const YEAR_2100: u64 = 4_102_444_800;
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let found = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    match (YEAR_2025..YEAR_2100).contains(&seconds) {
        true => Finding::good("clock", found),
        false => Finding::bad("clock", found, "windows and freshness follow the clock: set it, and keep it set with NTP"),
    }
}

/// A connection is an open file; the log, the store and the libraries take some hundred more.
fn open_files(limit: Option<u64>, connections: usize) -> Finding {
    let needed = connections as u64 + 512;
    match limit {
        Some(limit) if limit < needed => Finding::note(
            "open files",
            format!("at most {limit}; service.connections = {connections} may need {needed}"),
            format!("run `ulimit -n {needed}` before starting, or lower service.connections"),
        ),
        Some(limit) => Finding::good("open files", format!("at most {limit}")),
        None => Finding::good("open files", "no limit"),
    }
}

fn state_dir(dir: &Path) -> Finding {
    const WHAT: &str = "state folder";
    let shown = dir.display();
    // It is made at the first start: until then, the folder it will be made in counts.
    let Some(there) = dir.ancestors().map(|a| if a.as_os_str().is_empty() { Path::new(".") } else { a }).find(|a| a.exists())
    else {
        return Finding::bad(WHAT, format!("{shown} has no parent"), "set engine.state_dir (OVERDRIVE_STATE_DIR)");
    };
    if let Err(e) = try_writing(there) {
        return Finding::bad(
            WHAT,
            format!("cannot write into {}: {e}", there.display()),
            "give this user the folder, or set engine.state_dir (OVERDRIVE_STATE_DIR)",
        );
    }
    match statvfs(there).map(|fs| fs.f_bavail * fs.f_frsize / MIB) {
        Ok(free) if free < 64 => Finding::bad(WHAT, format!("{shown}: {free} MiB free"), "free some space: the log grows there"),
        Ok(free) if free < 1024 => {
            Finding::note(WHAT, format!("{shown}: {free} MiB free"), "the log grows there; keep 1 GiB free")
        }
        Ok(free) => Finding::good(WHAT, format!("{shown}: writable, {} GiB free", free / 1024)),
        Err(e) => Finding::note(WHAT, format!("{shown}: writable, free space unknown: {e}"), ""),
    }
}

fn try_writing(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".overdrive-doctor-{}", std::process::id()));
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

fn backfill(path: &Path) -> Finding {
    let found = path.display().to_string();
    match path.exists() {
        true => Finding::good("backfill", found),
        false => Finding::bad("backfill", format!("{found} does not exist"), "correct source.backfill, or set it to \"\""),
    }
}

/// Free, or held by a service of ours.
fn port(what: &'static str, bind: &str, port: u16) -> Finding {
    let ip: IpAddr = bind.parse().expect("a checked setting");
    let address = SocketAddr::new(ip, port);
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(what, format!("{address} is free")),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let local = if ip.is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, port)) } else { address };
            let (path, setting) = if what == "service port" { ("livez", "service") } else { ("metrics", "metrics") };
            match ask(&format!("{local}/{path}")) {
                Ok(()) => Finding::good(what, format!("{address} answers /{path}: the service is running")),
                Err(_) => Finding::bad(
                    what,
                    format!("{address} is taken by another program"),
                    format!("stop it, or set {setting}.port (OVERDRIVE_{}__PORT)", setting.to_uppercase()),
                ),
            }
        }
        Err(e) => {
            Finding::bad(what, format!("cannot listen on {address}: {e}"), "choose an address of this machine, a port above 1023")
        }
    }
}

/// Free, or held by somebody: what does not speak HTTP/1 cannot be asked here.
fn grpc_port(bind: &str, port: u16) -> Finding {
    let address = SocketAddr::new(bind.parse().expect("a checked setting"), port);
    match TcpListener::bind(address) {
        Ok(_) => Finding::good("grpc port", format!("{address} is free")),
        Err(e) => Finding::note(
            "grpc port",
            format!("cannot listen on {address}: {e}"),
            "if it is not a shim of yours that answers there, set service.grpc_port (OVERDRIVE_SERVICE__GRPC_PORT)",
        ),
    }
}

/// Succeeds when `http://host:port/path` answers 200 within three seconds.
pub fn ask(address: &str) -> Result<(), String> {
    let status = status_of(address).map_err(|e| format!("http://{address} does not answer: {e}"))?;
    if status == "200" { Ok(()) } else { Err(format!("http://{address} answers {status:?}, not 200")) }
}

fn status_of(address: &str) -> io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let to = host.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    // `HTTP/1.1 200 `: the rest does not matter.
    let mut first = [0; 12];
    stream.read_exact(&mut first)?;
    Ok(String::from_utf8_lossy(&first[9..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn more_workers_than_processors_is_worth_a_note() {
        assert_eq!(processors(2, 2).mark, Mark::Good);
        let note = processors(8, 2);
        assert_eq!((note.mark, note.advice.as_str()), (Mark::Note, "workers wait for one another; set engine.workers to 2"));
    }

    #[test]
    fn a_clock_that_was_never_set_is_wrong() {
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(86_400)).found, "1970-01-02T00:00:00Z");
        assert_eq!(clock(UNIX_EPOCH).mark, Mark::Bad);
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(1_763_600_000)).mark, Mark::Good);
    }

    #[test]
    fn open_files_must_hold_the_connections() {
        assert_eq!(open_files(Some(1024), 4096).mark, Mark::Note);
        assert_eq!(open_files(Some(65_536), 4096).mark, Mark::Good);
        assert_eq!(open_files(None, 4096).mark, Mark::Good);
    }

    #[test]
    fn a_state_folder_is_judged_before_it_exists_and_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert_ne!(state_dir(&dir.path().join("a/b")).mark, Mark::Bad);
        assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 0, "nothing may be left behind");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("writable");
        assert_eq!(state_dir(&file.join("state")).mark, Mark::Bad, "a file is no folder");
    }

    #[test]
    fn a_taken_port_is_told_from_a_running_service() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let number = taken.local_addr().expect("bound").port();
        let answers = ["200 OK", "503 Service Unavailable"];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = taken.accept().expect("a question");
                let mut request = [0; 512];
                let n = stream.read(&mut request).expect("a request");
                assert!(request[..n].starts_with(b"GET /livez HTTP/1.1\r\n"));
                stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).expect("still connected");
            }
        });
        assert_eq!(port("service port", "127.0.0.1", number).mark, Mark::Good);
        let bad = port("service port", "127.0.0.1", number);
        assert!(bad.mark == Mark::Bad && bad.advice.contains("OVERDRIVE_SERVICE__PORT"), "{bad:?}");
        server.join().expect("both questions were asked");
    }
}
