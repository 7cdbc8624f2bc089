//! The keys of this machine, for logins from a gateway: it asks for signatures, and no key leaves. Speaks the protocol of
//! ssh-agent (draft-ietf-sshm-ssh-agent) to the agents of here.
//!
//! A signature is given for a login on a host of the group only: that the login names the host's key is what
//! `publickey-hostbound-v00@openssh.com` (OpenSSH's PROTOCOL, 1.9; sshd from 8.9 on) is for, and the host checks it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex as Baton;

use super::config::{Agent, SshWay};
use super::lend::Directory;
use crate::options::Errors;
use crate::transport::spawn::{self, Manner, Process, Started};

pub(super) const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
/// Most bytes of a message, as OpenSSH has it.
pub(super) const MESSAGE_MAX: usize = 256 << 10;
/// How long an agent may take to answer; somebody may have to touch something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take where nobody is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A login's request begins with this behind the session's name (RFC 4252, section 7).
const USERAUTH_REQUEST: u8 = 50;

/// Keys that sign for gateways.
#[derive(Default)]
pub(super) struct Keys {
    sources: Baton<Sources>,
    /// Users, and the keys of hosts that these may log in on.
    allowed: Mutex<HashSet<(String, Vec<u8>)>>,
}

/// Where keys are.
#[derive(Default)]
struct Sources {
    agents: Vec<Source>,
    /// What has been looked at.
    files: HashSet<PathBuf>,
    /// Has the keys of files.
    own: Option<Own>,
}

/// An agent, and what may be used of it.
struct Source {
    socket: PathBuf,
    identities: Vec<Identity>,
    /// All of them, or those of `only` (IdentitiesOnly of ssh_config(5)).
    any: bool,
    only: HashSet<Vec<u8>>,
}

struct Identity {
    key: Vec<u8>,
    comment: Vec<u8>,
}

impl Source {
    async fn at(socket: PathBuf) -> Self {
        let identities = identities(&socket).await;
        tracing::debug!(?socket, keys = identities.len(), "an agent");
        Self { socket, identities, any: false, only: HashSet::new() }
    }

    fn usable(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter().filter(|identity| self.any || self.only.contains(&identity.key))
    }
}

impl Sources {
    /// Adds what ssh would try on this way.
    async fn add(&mut self, way: &SshWay) {
        let new = way.identities.iter().filter(|file| self.files.insert((*file).clone()));
        let new: Vec<_> = new.filter(|file| file.exists()).collect();
        if !new.is_empty() {
            if self.own.is_none() {
                self.own = Own::start().await;
            }
            if let Some(own) = &self.own {
                own.add(&new).await;
                let socket = own.socket.clone();
                self.agents.retain(|agent| agent.socket != socket);
                self.agents.push(Source { any: true, ..Source::at(socket).await });
            }
        }
        let socket = match &way.agent {
            Agent::Environment => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
            Agent::Nobody => None,
            Agent::At(socket) => Some(socket.clone()),
        };
        let Some(socket) = socket else { return };
        if !self.agents.iter().any(|agent| agent.socket == socket) {
            self.agents.push(Source::at(socket.clone()).await);
        }
        for agent in self.agents.iter_mut().filter(|agent| agent.socket == socket) {
            agent.any |= way.any_identity;
            agent.only.extend(way.identities.iter().filter_map(|file| public_key(file)));
        }
    }

    fn usable(&self) -> impl Iterator<Item = (&Source, &Identity)> {
        self.agents.iter().flat_map(|agent| agent.usable().map(move |identity| (agent, identity)))
    }
}

/// The public key that lies beside a private one.
fn public_key(file: &Path) -> Option<Vec<u8>> {
    let mut path = file.as_os_str().to_owned();
    if file.extension().is_none_or(|extension| extension != "pub") {
        path.push(".pub");
    }
    let text = std::fs::read_to_string(path).ok()?;
    Base64::decode_vec(text.split_whitespace().nth(1)?).ok()
}

impl Keys {
    /// Adds those that ssh would try on this way: of the agent, and of files that need no passphrase.
    pub(super) async fn add(&self, way: &SshWay) {
        self.sources.lock().await.add(way).await;
    }

    /// Signs for logins of this user on hosts that have one of these keys.
    pub(super) fn allow(&self, user: &str, host_keys: Vec<Vec<u8>>) {
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        allowed.extend(host_keys.into_iter().map(|key| (user.to_owned(), key)));
    }

    /// The answer to a request of a gateway.
    pub(super) async fn answer(&self, request: &[u8]) -> Bytes {
        match request.first() {
            Some(&REQUEST_IDENTITIES) => self.identities().await,
            Some(&SIGN_REQUEST) => self.sign(request).await,
            _ => Bytes::from_static(&[FAILURE]),
        }
    }

    async fn identities(&self) -> Bytes {
        let sources = self.sources.lock().await;
        let mut listed = HashSet::new();
        let all: Vec<_> = sources.usable().filter(|(_, identity)| listed.insert(&identity.key)).collect();
        let mut answer = BytesMut::new();
        answer.put_u8(IDENTITIES_ANSWER);
        answer.put_u32(all.len() as u32);
        for (_, Identity { key, comment }) in all {
            for field in [key, comment] {
                answer.put_u32(field.len() as u32);
                answer.put_slice(field);
            }
        }
        answer.freeze()
    }

    /// A signature, or that there is none.
    async fn sign(&self, request: &[u8]) -> Bytes {
        let refused = Bytes::from_static(&[FAILURE]);
        let Some(Login { key, user, host_key }) = Login::of(request) else {
            tracing::warn!("a gateway wants something signed that is no login on a known host");
            return refused;
        };
        let login = (String::from_utf8_lossy(user).into_owned(), host_key.to_vec());
        if !self.allowed.lock().unwrap_or_else(PoisonError::into_inner).contains(&login) {
            tracing::warn!(user = login.0, "a gateway wants to log in on a host that is none of the group");
            return refused;
        }
        let sources = self.sources.lock().await;
        let Some(socket) =
            sources.usable().find(|(_, identity)| identity.key == key).map(|(agent, _)| agent.socket.clone())
        else {
            return refused;
        };
        drop(sources);
        ask(&socket, request).await.map_or(refused, Bytes::from)
    }
}

/// What a login says of itself when it wants to be signed.
#[derive(Debug, PartialEq, Eq)]
struct Login<'a> {
    key: &'a [u8],
    user: &'a [u8],
    host_key: &'a [u8],
}

impl<'a> Login<'a> {
    /// `None` if it is no request to sign a login that names the key of its host.
    fn of(request: &'a [u8]) -> Option<Self> {
        let mut request = Fields(request);
        if request.byte()? != SIGN_REQUEST {
            return None;
        }
        let key = request.string()?;
        let mut data = Fields(request.string()?);
        let _session = data.string()?;
        if data.byte()? != USERAUTH_REQUEST {
            return None;
        }
        let user = data.string()?;
        let is_login = data.string()? == b"ssh-connection" && data.string()? == b"publickey-hostbound-v00@openssh.com";
        if !is_login || data.byte()? != 1 {
            return None;
        }
        let (_algorithm, signing, host_key) = (data.string()?, data.string()?, data.string()?);
        (signing == key && data.0.is_empty()).then_some(Self { key, user, host_key })
    }
}

/// What is left of a message (RFC 4251, section 5).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.number()? as usize;
        let (string, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(string)
    }
}

/// The keys of an agent; none if it does not say.
async fn identities(socket: &Path) -> Vec<Identity> {
    let answer = ask(socket, &[REQUEST_IDENTITIES]).await.unwrap_or_default();
    let mut fields = Fields(&answer);
    let mut identities = Vec::new();
    if fields.byte() == Some(IDENTITIES_ANSWER) && fields.number().is_some() {
        while let (Some(key), Some(comment)) = (fields.string(), fields.string()) {
            identities.push(Identity { key: key.to_vec(), comment: comment.to_vec() });
        }
    }
    identities
}

/// One request to an agent.
async fn ask(socket: &Path, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let asked = async {
        let mut agent = UnixStream::connect(socket).await?;
        agent.write_u32(request.len() as u32).await?;
        agent.write_all(request).await?;
        read(&mut agent).await
    };
    tokio::time::timeout(PATIENCE, asked).await?
}

/// One message of an agent, or to it.
pub(super) async fn read(stream: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let len = stream.read_u32().await? as usize;
    if len == 0 || len > MESSAGE_MAX {
        return Err(std::io::Error::other("no message of ssh-agent has this size"));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Runs ssh-agent until the end of its input, then removes what is left of it. In a shell of its own: the outer one is killed when
/// this process is, which an ssh-agent cannot be (it has a group of its own by the mode of its file, see prctl(2)).
const AGENT: &str = "command -v ssh-agent >/dev/null && (ssh-agent -D -a \"$1/agent\" & cat >/dev/null; kill $!; wait $!; rm -rf -- \"$1\"); :";

/// An agent of our own, which ends with this, or with this process however that ends.
struct Own {
    socket: PathBuf,
    _input: OwnedFd,
    _process: Process,
}

impl Own {
    /// `None` if there is no such program.
    async fn start() -> Option<Self> {
        let directory = Directory::new(&std::env::temp_dir()).ok()?.leave();
        let socket = directory.join("agent");
        let argv = ["sh".into(), "-c".into(), AGENT.into(), "sh".into(), directory.into_os_string()];
        // Ctrl-C is none of its business.
        let manner = Manner { errors: &Errors::Keep, own_group: true };
        let Started { reader, writer, process } = spawn::start_with(&argv, manner).ok()?;
        // It says where it listens, once it does.
        let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader).ok()?;
        tokio::time::timeout(AT_ONCE, reader.read_u8()).await.ok()?.ok()?;
        Some(Self { socket, _input: writer, _process: process })
    }

    /// Gives it the keys of these files, as far as they can be read without anybody being asked for something.
    async fn add(&self, files: &[&PathBuf]) {
        let mut variable = OsString::from("SSH_AUTH_SOCK=");
        variable.push(&self.socket);
        // A passphrase would be asked for by a program that says no.
        let words = ["env", "SSH_ASKPASS=false", "SSH_ASKPASS_REQUIRE=force"].map(OsString::from);
        let mut argv: Vec<_> = words.into_iter().chain([variable]).collect();
        argv.extend(["ssh-add", "-q", "--"].map(Into::into));
        argv.extend(files.iter().map(|file| file.as_os_str().to_owned()));
        // An older one asks on the terminal all the same.
        let _ = tokio::time::timeout(AT_ONCE, spawn::finished(&argv)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(out: &mut Vec<u8>, field: &[u8]) {
        out.put_u32(field.len() as u32);
        out.put_slice(field);
    }

    fn request(method: &str, user: &str, key: &str, signing: &str, host_key: Option<&str>) -> Vec<u8> {
        let mut data = Vec::new();
        string(&mut data, b"session");
        data.push(USERAUTH_REQUEST);
        for field in [user, "ssh-connection", method] {
            string(&mut data, field.as_bytes());
        }
        data.push(1);
        for field in ["ssh-ed25519", signing].into_iter().chain(host_key) {
            string(&mut data, field.as_bytes());
        }
        let mut request = vec![SIGN_REQUEST];
        string(&mut request, key.as_bytes());
        string(&mut request, &data);
        request.put_u32(0);
        request
    }

    const BOUND: &str = "publickey-hostbound-v00@openssh.com";

    #[test]
    fn a_login_is_read() {
        let request = request(BOUND, "ops", "key", "key", Some("host"));
        assert_eq!(Login::of(&request), Some(Login { key: b"key", user: b"ops", host_key: b"host" }));
        for len in 0..request.len() - 4 {
            assert_eq!(Login::of(&request[..len]), None);
        }
    }

    #[test]
    fn what_else_is_to_be_signed_is_no_login() {
        assert_eq!(Login::of(&request("publickey", "ops", "key", "key", None)), None);
        assert_eq!(Login::of(&request(BOUND, "ops", "key", "other", Some("host"))), None);
        assert_eq!(Login::of(&request(BOUND, "ops", "key", "key", None)), None);
        let mut sshsig = vec![SIGN_REQUEST];
        string(&mut sshsig, b"key");
        string(&mut sshsig, b"SSHSIG\0\0\0\x04file");
        assert_eq!(Login::of(&sshsig), None);
        assert_eq!(Login::of(&[17]), None, "add a key");
    }

    /// An agent that has one key, and signs everything with its length.
    async fn agent(socket: &Path) {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read(&mut stream).await.unwrap();
            let mut answer = Vec::new();
            if request == [REQUEST_IDENTITIES] {
                answer.push(IDENTITIES_ANSWER);
                answer.put_u32(1);
                string(&mut answer, b"key");
                string(&mut answer, b"comment");
            } else {
                answer.push(14);
                string(&mut answer, &(request.len() as u32).to_be_bytes());
            }
            stream.write_u32(answer.len() as u32).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn signs_for_hosts_of_the_group_only() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let serving = tokio::spawn({
            let socket = socket.clone();
            async move { agent(&socket).await }
        });
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        let way = SshWay {
            opts: Vec::new(),
            name: "host".into(),
            user: "ops".into(),
            identities: Vec::new(),
            any_identity: true,
            agent: Agent::At(socket.clone()),
            known_hosts: Vec::new(),
        };
        let keys = Keys::default();
        // Only what is named, and none is: not even a key of an agent that is not to be asked.
        let file = dir.path().join("id");
        keys.add(&SshWay { any_identity: false, identities: vec![file.clone()], ..way.clone() }).await;
        keys.add(&SshWay { agent: Agent::Nobody, ..way.clone() }).await;
        assert_eq!(&keys.answer(&[REQUEST_IDENTITIES]).await[..], b"\x0c\0\0\0\0");
        // The public half is there, the private one with the agent.
        std::fs::write(dir.path().join("id.pub"), format!("ssh-ed25519 {}", Base64::encode_string(b"key"))).unwrap();
        keys.add(&SshWay { any_identity: false, identities: vec![file], ..way.clone() }).await;
        let listed: &[u8] = b"\x0c\0\0\0\x01\0\0\0\x03key\0\0\0\x07comment";
        assert_eq!(keys.answer(&[REQUEST_IDENTITIES]).await, listed);
        let keys = Keys::default();
        keys.add(&way).await;
        assert_eq!(keys.answer(&[REQUEST_IDENTITIES]).await, listed);
        keys.allow("ops", vec![b"host".to_vec()]);
        let login = request(BOUND, "ops", "key", "key", Some("host"));
        assert_eq!(keys.answer(&login).await[0], 14);
        for refused in [
            request(BOUND, "root", "key", "key", Some("host")),
            request(BOUND, "ops", "key", "key", Some("elsewhere")),
            request(BOUND, "ops", "unknown", "unknown", Some("host")),
            vec![19],
            vec![],
        ] {
            assert_eq!(&keys.answer(&refused).await[..], [FAILURE]);
        }
        serving.abort();
    }
}
