//! A network with one server in it: the caller's. It can be reached, and nothing else, in every backend.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};

use lbx_sandbox::filter::{Compare, Condition, Rule};
use lbx_sandbox::{Level, Network, Running, Spec, Streams};

use crate::attacks::{armed, works_outside};
use crate::kernel::{error, under, without};
use crate::support::{Rootfs, launcher};

/// Answers each line that comes with itself in other words.
fn answer(listener: &TcpListener, connections: usize) -> Vec<String> {
    let answer = |stream: TcpStream| {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        (&stream).write_all(format!("heard {line}").as_bytes()).expect("the command");
        let _ = stream.shutdown(Shutdown::Both);
        line
    };
    listener.incoming().take(connections).map(|stream| answer(stream.expect("a connection"))).collect()
}

fn attack(root: &Rootfs, words: &[&str], port: u16) -> Spec {
    let mut spec = root.shell("");
    spec.argv = std::iter::once(&"/bin/attack").chain(words).map(|word| (*word).to_owned()).collect();
    spec.network = Network::Served(port);
    spec
}

fn served() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// What the command wrote, once it has ended well.
fn output(mut running: Running) -> String {
    let mut said = String::new();
    std::io::Read::read_to_string(&mut running.take_stdout().expect("a pipe"), &mut said).expect("UTF-8");
    let exit = running.wait().expect("it runs");
    assert!(exit.success(), "{exit:?} {said}");
    said
}

#[test]
fn the_server_is_reached_in_every_backend() {
    for root in armed() {
        let (own, port) = served();
        let spec = attack(&root, &["ask_server", &port.to_string()], port);
        let mut running = launcher().spawn(&spec, Streams::piped()).expect("started");
        let inside = running.listener().expect("it stands");
        // Where namespaces are made, nobody on the host can reach it.
        assert_eq!(inside.is_some(), root.backend.mounts_memory(), "{}", root.backend);
        let listener = inside.unwrap_or(own);
        let server = std::thread::spawn(move || answer(&listener, 2));
        assert_eq!(output(running), "heard hello\nheard hello\n", "{}", root.backend);
        assert_eq!(server.join().expect("answered"), ["hello\n", "hello\n"]);
    }
}

/// Whoever listens at one port in every way.
struct Ear {
    port: u16,
    tcp: TcpListener,
    tcp6: Option<TcpListener>,
    udp: UdpSocket,
}

impl Ear {
    fn new() -> Self {
        let (tcp, port) = served();
        // There are machines without the newer protocol.
        let tcp6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok();
        let udp = UdpSocket::bind(("127.0.0.1", port)).expect("the same port");
        tcp.set_nonblocking(true).expect("our own");
        if let Some(tcp6) = &tcp6 {
            tcp6.set_nonblocking(true).expect("our own");
        }
        udp.set_nonblocking(true).expect("our own");
        Self { port, tcp, tcp6, udp }
    }

    fn heard(&self) -> bool {
        self.tcp.accept().is_ok()
            || self.tcp6.as_ref().is_some_and(|tcp6| tcp6.accept().is_ok())
            || self.udp.recv(&mut [0; 8]).is_ok()
    }
}

#[test]
fn nothing_else_is_reached_in_any_backend() {
    let ear = Ear::new();
    let port = ear.port.to_string();
    assert!(works_outside(&["reach_port", &port]) && ear.heard(), "outside it works");
    for root in armed() {
        let ear = Ear::new();
        let (_own, served) = served();
        let spec = attack(&root, &["reach_port", &ear.port.to_string()], served);
        let mut running = launcher().spawn(&spec, Streams::piped()).expect("started");
        let _inside = running.listener().expect("it stands");
        let said = output(running);
        assert!(!ear.heard(), "{} {said}", root.backend);
    }
}

#[test]
fn a_command_that_asks_for_sockets_without_end_gets_what_it_may_have_and_ends() {
    for root in armed() {
        let (own, port) = served();
        let mut spec = attack(&root, &["socket_flood"], port);
        spec.limits.open_files = Some(64);
        let mut running = launcher().spawn(&spec, Streams::piped()).expect("started");
        let _inside = running.listener().expect("it stands");
        assert_eq!(output(running), "EMFILE\n", "{}", root.backend);
        drop(own);
    }
}

#[test]
fn where_what_is_served_cannot_be_reached_there_is_no_sandbox() {
    for root in armed().into_iter().filter(|root| !root.backend.mounts_memory()) {
        let calls = [(libc::SYS_connect, libc::ENETUNREACH)];
        let refused = without(&calls, move || launcher().test(root.backend, root.dir.path()));
        let said = refused.expect_err("nothing can be connected to").to_string();
        assert!(said.contains("connect(127.0.0.1:"), "{said}");
    }
}

/// Old kernels know no questions, and a sandbox around this one may be the one that answers them. Where there is no
/// network of one's own either, nothing keeps the command from other servers, and nothing is promised.
#[test]
fn where_nobody_can_answer_the_filter_only_networks_of_ones_own_are_promised() {
    for root in armed() {
        let (own_network, backend) = (root.backend.mounts_memory(), root.backend);
        let asks = Condition::new(1, 1 << 3, Compare::NotEqual, 0);
        let busy = Rule::when(libc::SYS_seccomp, [asks], error(libc::EBUSY));
        let claims = under(vec![busy], move || launcher().test(root.backend, root.dir.path()));
        let claims = claims.expect("the rest holds");
        let level = if own_network { Level::Full } else { Level::Partial };
        assert_eq!((claims.network_served, claims.level()), (own_network, level), "{backend}");
    }
}

#[test]
fn without_a_promise_the_server_is_reached_all_the_same() {
    for root in armed() {
        let asks = Condition::new(1, 1 << 3, Compare::NotEqual, 0);
        let busy = Rule::when(libc::SYS_seccomp, [asks], error(libc::EBUSY));
        let said = under(vec![busy], move || {
            let (own, port) = served();
            let spec = attack(&root, &["ask_server", &port.to_string()], port);
            let mut running = launcher().spawn(&spec, Streams::piped()).expect("started");
            let listener = running.listener().expect("it stands").unwrap_or(own);
            let server = std::thread::spawn(move || answer(&listener, 2));
            let said = output(running);
            server.join().expect("answered");
            said
        });
        assert_eq!(said, "heard hello\nheard hello\n");
    }
}
