//! Sockets, and the network that is locked while they are dumped.

use super::{Entry, cause};

pub(super) const ENTRIES: &[Entry] = &[
    cause(
        6,
        "tcp-needs-choice",
        &["inet: Connected TCP socket, consider using --{option} option."],
        "The tree has an established TCP connection, and the dump was not told what should become of it.",
        "Choose one: --tcp-established keeps the connections alive (restore on the same address), --tcp-close restores \
         them closed. crr check --pid PID lists them with their peers.",
    ),
    cause(
        7,
        "tcp-in-image",
        &["inet: Connected TCP socket in image"],
        "The images hold a TCP connection (or one that both ends had shut down), and the restore was not told what should \
         become of it.",
        "Restore with --tcp-established, or with --tcp-close to have it closed. crr restore --dir DIR takes what crr dump \
         recorded; a connection that both ends had shut down needs the option at the dump as well.",
    ),
    cause(
        8,
        "in-flight",
        &[
            "inet: In-flight connection (l) for {socket}",
            "inet: In-flight connections can be ignored with the --{socket} option",
        ],
        "A client has connected to a listening socket of the tree and the program has not yet accepted the connection.",
        "Dump again a moment later, or with --skip-in-flight: the connection is dropped and the client has to connect anew.",
    ),
    cause(
        9,
        "tcp-close-missing",
        &["Need to set the --tcp-close options."],
        "The images were dumped with --tcp-close and the restore was started without it.",
        "Restore with --tcp-close. crr restore --dir DIR does so by itself where crr made the dump.",
    ),
    cause(
        10,
        "socket-option-unsupported",
        &[
            "sockets: Can't get 1:16 opt: Operation not supported",
            "sockets: Can't get 1:34 opt: Operation not supported",
        ],
        "This CRIU asks every socket for an option that Linux 6.16 and later give for unix sockets only; CRIU up to 4.1.1 \
         can therefore not dump any TCP or UDP socket here, though `criu check` is content.",
        "Use CRIU 4.2 or later: tools/setup-criu of crr's repository installs one. crr check lists those it finds.",
    ),
    cause(
        11,
        "socket-family",
        &["sockets: BUG! Unknown socket collected (family {family#})"],
        "The tree has a socket of address family {family} (for example 40, vsock), which CRIU cannot dump.",
        "Let the program close that socket before the dump; crr check --pid PID \
         shows it. No option of CRIU helps.",
    ),
    cause(
        12,
        "socket-protocol",
        &["inet: Unsupported proto {protocol#} for socket {socket}"],
        "The tree has an internet socket of protocol {protocol} (262 is multipath TCP, 132 SCTP), which CRIU cannot dump.",
        "Have the program use plain TCP. Go programs listen with multipath TCP by default since Go 1.24: start them with \
         GODEBUG=multipathtcp=0.",
    ),
    cause(
        13,
        "unix-outside",
        &["unix: External socket is used. Consider using --ext-unix-sk option."],
        "A unix socket of the tree is connected to a process outside of the tree.",
        "For a datagram socket with a named peer (syslog): --ext-unix-sk, which crr dump turns on by itself. For a stream or \
         seqpacket socket: --external 'unix[INODE]' and --ext-unix-sk together, at dump and restore. Or dump both ends as one \
         tree. crr check --pid PID names the inode and the peer.",
    ),
    cause(
        14,
        "unix-half-stream",
        &["unix: Can't dump half of stream unix connection. name: {name}; peer name: {peer}"],
        "A stream unix socket of the tree (its name: {name}) is connected to a process outside of the tree (its name: \
         {peer}).",
        "Dump both ends as one tree, or give --external 'unix[INODE]' and --ext-unix-sk together, at dump and restore. crr \
         check --pid PID names the inode and the peer.",
    ),
    cause(
        15,
        "unix-outside-in-image",
        &["unix: External socket found in image. Consider using the --ext-unix-sk option to allow restoring it."],
        "The images hold a unix socket whose peer was outside of the dumped tree.",
        "Restore with --ext-unix-sk; its peer must listen there under the same name. crr restore --dir DIR does so by itself \
         where crr made the dump.",
    ),
    cause(
        54,
        "no-libnftables",
        &["CRIU was built without libnftables support"],
        "The network lock nftables was asked for, and this CRIU was built without it.",
        "Use --network-lock iptables (Debian package iptables), or a CRIU with libnftables such as Debian's.",
    ),
    cause(
        54,
        "iptables-failed",
        &["Iptables configuration failed", "net: Locking network failed: iptables-restore returned {status#}"],
        "CRIU locks TCP connections with iptables, and iptables could not be run or refused.",
        "Use --network-lock nftables (needs no program), or install iptables (Debian package iptables). crr check shows \
         which of the two works here.",
    ),
    cause(
        54,
        "network-lock-failed",
        &["Locking connection failed using nftables", "tcp: Failed to lock TCP connection {socket}"],
        "CRIU could not lock a TCP connection against packets while it is dumped.",
        "It needs CAP_NET_ADMIN. Otherwise use another lock: --network-lock nftables or --network-lock iptables. crr check \
         shows which works here.",
    ),
    cause(
        54,
        "ip-tool-failed",
        &["net: IP tool failed on {command}"],
        "CRIU runs the program ip to save and restore a network namespace, and `ip {command}` failed or ip is not \
         installed.",
        "Install it (Debian package iproute2); CR_IP_TOOL in CRIU's environment names another program.",
    ),
    cause(
        59,
        "sock-diag-missing",
        &["sockets: Diag module missing ({family#})"],
        "The kernel's socket diagnosis for one kind of socket is missing ({family}), without which CRIU cannot dump any.",
        "Load the modules: modprobe -a unix_diag tcp_diag inet_diag udp_diag raw_diag netlink_diag af_packet_diag. In a \
         container they are loaded on the host.",
    ),
    cause(
        66,
        "address-missing",
        &["Can't connect inet socket back: {why}", "Can't bind inet socket back: {why}"],
        "A TCP connection could not be set up again: its local address is not present on this host, or the same connection \
         still exists here, for example as an orphan of a tree that was killed.",
        "Add the address to an interface (ip addr add …) before the restore, or end the old connection: ss -K src ADDRESS. \
         --tcp-close restores without the connections.",
    ),
    cause(
        76,
        "address-taken",
        &["inet: Can't bind inet socket (id {id#}): Address already in use"],
        "Another socket of this host has the address and port of a socket of the tree, perhaps one that was closed and is \
         still in TIME-WAIT or FIN-WAIT.",
        "See which: ss -anp lists sockets with their ports and processes (ss -tlnp those that listen). End that program, or \
         wait until the closed connection is gone: a minute or two.",
    ),
    cause(
        77,
        "unix-peer-gone",
        &["unix: Can't connect {id#} socket: {why}"],
        "A unix socket of the tree was connected to a server outside of it, and that server does not take the connection \
         now: {why}.",
        "Start the server that the tree was connected to (the socket's path is in the preflight's and the dump's output), \
         then restore again.",
    ),
];
