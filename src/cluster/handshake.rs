//! Two ends of a connection prove to each other that they know the secret, and compare what they are.
//!
//! ```text
//! both: magic, protocol, nonce ▶ both: proof of the secret over both nonces ▶ both: what it is, with a proof over all of it
//! ```
//! The facts that must stay true: an end says nothing of itself before the other has proven the secret; a proof cannot be used again,
//! nor sent back to whom it came from, because both nonces and the role are in it; and everything is bounded in size and time.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use super::member::Member;
use super::wire::{Stream, Timed, tend};

const MAGIC: &[u8; 8] = b"OVRDRIVE";
/// Changes with what is said here.
const PROTOCOL: u8 = 1;
/// What a process says of itself is shorter.
const MOST: usize = 1 << 16;

/// Of which the secret is made; it cannot be made of it again.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Of a secret.
    pub fn of(secret: &str) -> Self {
        Self(blake3::derive_key("overdrive cluster handshake 1", secret.as_bytes()))
    }

    /// Of what was said, by one who plays this role.
    pub fn proof(&self, role: Role, of: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[u8::from(role.accepts())]);
        for part in of {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        hasher.finalize()
    }
}

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Process 0, which was connected to: it alone knows the generation.
    Leader,
    /// Another, which was connected to.
    Follower,
    /// Who connected.
    Guest,
}

impl Role {
    fn accepts(self) -> bool {
        self != Role::Guest
    }

    fn other(self) -> Role {
        if self.accepts() { Role::Guest } else { Role::Follower }
    }
}

/// Why a connection is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Io(String),
    /// It does not know the secret.
    #[error("{0}")]
    Stranger(String),
    /// It is not the same program under the same settings.
    #[error("{0}")]
    Differs(String),
    /// It is of another run.
    #[error("{0}")]
    Generation(String),
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Self {
        Refused::Io(e.to_string())
    }
}

/// Proves, is proven to, and compares, within `time`. Yields what the other is.
pub fn shake(stream: &mut TcpStream, key: &Key, role: Role, me: &Member, time: Duration) -> Result<Member, Refused> {
    tend(stream, time)?;
    converse(&mut Timed::new(stream, time), key, role, me)
}

/// [`shake`] over anything that carries bytes.
pub fn converse<S: Stream>(wire: &mut Timed<S>, key: &Key, role: Role, me: &Member) -> Result<Member, Refused> {
    let (mine, theirs) = nonces(wire)?;
    let (asked, answered) = if role.accepts() { (&theirs, &mine) } else { (&mine, &theirs) };
    let proof = |role, said: &[u8]| key.proof(role, &[asked, answered, said]);

    wire.give(proof(role, b"").as_bytes())?;
    if proof(role.other(), b"") != wire.take::<32>()? {
        return Err(Refused::Stranger("it has another [cluster] secret; give all processes the same".into()));
    }
    let hello = me.encode();
    wire.give(proof(role, &hello).as_bytes())?;
    wire.give_frame(&hello)?;
    let (proven, said) = (wire.take::<32>()?, wire.frame(MOST)?);
    if proof(role.other(), &said) != proven {
        return Err(Refused::Stranger("what it says was changed on the way".into()));
    }
    compared(me, role, Member::decode(&said).map_err(Refused::Differs)?)
}

/// Mine and theirs, after it is clear that both speak this protocol.
fn nonces<S: Stream>(wire: &mut Timed<S>) -> Result<([u8; 32], [u8; 32]), Refused> {
    let mut mine = [0; 32];
    let drawn = rustix::rand::getrandom(&mut mine[..], rustix::rand::GetRandomFlags::empty()).map_err(io::Error::from)?;
    if drawn != mine.len() {
        return Err(Refused::Io("the system gave too few random bytes".into()));
    }
    wire.give(&[&MAGIC[..], &[PROTOCOL], &mine].concat())?;
    if wire.take::<8>()? != *MAGIC {
        return Err(Refused::Io("it does not speak the protocol of overdrive".into()));
    }
    let [protocol] = wire.take::<1>()?;
    if protocol != PROTOCOL {
        let what = format!("it speaks protocol {protocol}, this program {PROTOCOL}; start the same version everywhere");
        return Err(Refused::Differs(what));
    }
    Ok((mine, wire.take()?))
}

fn compared(me: &Member, role: Role, theirs: Member) -> Result<Member, Refused> {
    let differences = me.differences(&theirs);
    if !differences.is_empty() {
        return Err(Refused::Differs(format!("{}; start all processes with the same", differences.join(", "))));
    }
    let guest = if role.accepts() { &theirs } else { me };
    let host = if role.accepts() { me } else { &theirs };
    if guest.process <= host.process || guest.process >= host.processes {
        let what = format!("process {} came to process {}; each number is given to one process", guest.process, host.process);
        return Err(Refused::Differs(what));
    }
    match (host.process, host.generation, guest.generation) {
        (0, _, None) => Ok(theirs),
        (_, Some(one), Some(other)) if one == other => Ok(theirs),
        (_, one, other) => Err(Refused::Generation(format!("they are of two generations, {one:?} and {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::member::tests::member;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const TIME: Duration = Duration::from_secs(30);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let guest = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        (listener.accept().expect("somebody came").0, guest)
    }

    /// What the host and the guest say of each other.
    fn meet(host: Member, secret: &'static str, guest: Member) -> (Result<Member, Refused>, Result<Member, Refused>) {
        let (mut accepted, mut dialled) = pair();
        let host = std::thread::spawn(move || {
            let role = if host.process == 0 { Role::Leader } else { Role::Follower };
            shake(&mut accepted, &Key::of("open"), role, &host, TIME)
        });
        let guest = shake(&mut dialled, &Key::of(secret), Role::Guest, &guest, TIME);
        (host.join().expect("it does not panic"), guest)
    }

    #[test]
    fn two_of_a_kind_know_each_other() {
        let host = Member { generation: Some(7), ..member(0) };
        let (of_guest, of_host) = meet(host.clone(), "open", member(1));
        assert_eq!((of_guest, of_host), (Ok(member(1)), Ok(host)));
    }

    #[test]
    fn another_secret_workers_number_or_generation_is_refused_by_both() {
        let host = Member { generation: Some(7), ..member(0) };
        let stranger = |end: &Result<Member, Refused>| matches!(end, Err(Refused::Stranger(what)) if what.contains("secret"));
        let (one, other) = meet(host.clone(), "shut", member(1));
        assert!(stranger(&one) && stranger(&other), "{one:?} {other:?}");
        for (guest, says) in [
            (Member { workers: 2, ..member(1) }, "workers is "),
            (Member { processes: 3, ..member(1) }, "processes is "),
            (member(0), "process 0 came to process 0"),
            (member(2), "process 2 came to process 0"),
        ] {
            let (one, other) = meet(host.clone(), "open", guest);
            for end in [one, other] {
                assert!(matches!(&end, Err(Refused::Differs(what)) if what.contains(says)), "{says}: {end:?}");
            }
        }
        let of = |process, generation| Member { processes: 3, generation, ..member(process) };
        let (one, other) = meet(of(1, Some(7)), "open", of(2, Some(8)));
        assert!(matches!((one, other), (Err(Refused::Generation(_)), Err(Refused::Generation(_)))));
        assert!(meet(of(1, Some(7)), "open", of(2, Some(7))).0.is_ok());
    }

    #[test]
    fn whatever_else_connects_is_refused_and_nothing_is_said_to_it() {
        let whole = [&MAGIC[..], &[PROTOCOL], &[0; 64]].concat();
        for (sent, says) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "protocol of overdrive"),
            (b"OVRDRIVE\x09", "speaks protocol 9"),
            (b"OVRD", "closed"),
            (b"", "closed"),
            (&whole, "another [cluster] secret"),
        ] {
            let (mut accepted, mut dialled) = pair();
            dialled.write_all(sent).expect("it takes it");
            dialled.shutdown(std::net::Shutdown::Write).expect("it is open");
            let refused = shake(&mut accepted, &Key::of("open"), Role::Leader, &member(0), TIME).expect_err("nobody");
            drop(accepted);
            assert!(refused.to_string().contains(says), "{sent:?}: {refused}");
            let mut heard = Vec::new();
            let _reset = dialled.read_to_end(&mut heard);
            assert!(heard.len() <= 8 + 1 + 32 + 32, "{} bytes", heard.len());
        }
    }

    #[test]
    fn silence_is_not_waited_for() {
        let (mut accepted, _idle) = pair();
        let refused = shake(&mut accepted, &Key::of(""), Role::Leader, &member(0), Duration::from_millis(50));
        assert_eq!(refused, Err(Refused::Io("it took too long".into())));
    }
}
