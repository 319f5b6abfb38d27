//! The master's flags: Mesos' names, defaults and forms, as far as they mean something here.

use tepui_server::flags::{
    Flag,
    Kind::{Bool, Duration, Number, Path, Size, Text},
    Refused, Table,
};

/// The hidden switch for tests of the recovery from panics.
pub(crate) const INJECT_PANICS: &str = "inject_panics";

const FLAGS: &[Flag] = &[
    Flag::new(
        "advertise_ip",
        Text,
        None,
        "IP address told to agents and frameworks; not bound.",
    ),
    Flag::new(
        "advertise_port",
        Number,
        None,
        "Port told to agents and frameworks; not bound.",
    ),
    Flag::new(
        "agent_ping_timeout",
        Duration,
        Some("15secs"),
        "How long an agent has to answer a ping.",
    )
    .alias("slave_ping_timeout"),
    Flag::new(
        "agent_reregister_timeout",
        Duration,
        Some("10mins"),
        "How long an agent that is away may take to come back.",
    )
    .alias("slave_reregister_timeout"),
    Flag::new(
        "allocation_interval",
        Duration,
        Some("1secs"),
        "Time between two allocations.",
    ),
    Flag::new(
        "authenticate_agents",
        Bool,
        Some("false"),
        "Admit only agents with credentials.",
    )
    .alias("authenticate_slaves"),
    Flag::new(
        "authenticate_http_frameworks",
        Bool,
        Some("false"),
        "Admit only frameworks with credentials.",
    ),
    Flag::new(
        "authenticate_http_readonly",
        Bool,
        Some("false"),
        "Let only those with credentials read.",
    ),
    Flag::new(
        "authenticate_http_readwrite",
        Bool,
        Some("false"),
        "Let only those with credentials write.",
    ),
    Flag::new("cluster", Text, None, "Name of the cluster, for people."),
    Flag::new(
        "cluster_key_file",
        Path,
        None,
        "File with the key that masters prove to each other that they know; the same for all.",
    ),
    Flag::new(
        "credentials",
        Path,
        None,
        "File with principals and secrets, as JSON.",
    ),
    Flag::new(
        "domain",
        Text,
        None,
        "Fault domain of this master, as JSON.",
    ),
    Flag::new(
        "election_timeout",
        Duration,
        Some("150ms"),
        "Masters elect another leader when they hear nothing of theirs for this long, up to twice as long.",
    ),
    Flag::new(
        "fair_sharing_excluded_resource_names",
        Text,
        None,
        "Names of resources that do not count for fair sharing, separated by commas.",
    ),
    Flag::new(
        "filter_gpu_resources",
        Bool,
        Some("true"),
        "Offer agents with GPUs only to frameworks with the capability GPU_RESOURCES.",
    ),
    Flag::new(
        "hostname",
        Text,
        None,
        "Host name told to agents and frameworks.",
    ),
    Flag::new(
        "hostname_lookup",
        Bool,
        Some("true"),
        "When --hostname is not given: the machine's own name, unless it does not lead to --advertise_ip.",
    ),
    Flag::new(
        INJECT_PANICS,
        Bool,
        Some("false"),
        "For tests alone: let a request make the master panic.",
    ),
    Flag::new(
        "insecure_peers",
        Bool,
        Some("false"),
        "Let masters on other machines speak to this one without a key or certificates.",
    ),
    Flag::new(
        "ip",
        Text,
        Some("127.0.0.1"),
        "IP address to listen on; 0.0.0.0 for all of them.",
    ),
    Flag::new(
        "join",
        Text,
        None,
        "HOST:RAFT_PORT of any master of the cluster that a master without state joins; \
         `wait` to wait for `tepui master add`.",
    ),
    Flag::new(
        "log_dir",
        Path,
        None,
        "Shown in /state; logs go to standard error.",
    ),
    Flag::new(
        "logging_level",
        Text,
        Some("INFO"),
        "TRACE, DEBUG, INFO, WARNING or ERROR.",
    ),
    Flag::new(
        "max_agent_ping_timeouts",
        Number,
        Some("5"),
        "Pings without an answer after which an agent is unreachable.",
    )
    .alias("max_slave_ping_timeouts"),
    Flag::new(
        "max_operator_event_stream_subscribers",
        Number,
        Some("1000"),
        "Subscriptions of operators at a time; the oldest ends when there is one more.",
    ),
    Flag::new(
        "min_allocatable_resources",
        Text,
        Some("cpus:0.01|mem:32"),
        "Smallest offers: alternatives separated by |, each such as cpus:1;mem:32.",
    ),
    Flag::new(
        "offer_timeout",
        Duration,
        None,
        "Age at which an offer is taken back; never without.",
    ),
    Flag::new(
        "preemption",
        Text,
        None,
        "Roles that preempt and that are preempted, as JSON: {\"grace_seconds\": 30, \"roles\": [{\"role\": \"prod\", \"priority\": 100, \"preempts\": true}, {\"role\": \"batch\", \"priority\": 10, \"preemptible\": true}]}. The same on every master.",
    ),
    Flag::new(
        "peer_tls_ca_file",
        Path,
        None,
        "Certificates that sign those of masters, as PEM.",
    ),
    Flag::new(
        "peer_tls_cert_file",
        Path,
        None,
        "This master's certificate for other masters, as PEM.",
    ),
    Flag::new("peer_tls_key_file", Path, None, "Its key, as PEM."),
    Flag::new(
        "peers",
        Text,
        None,
        "HOST:RAFT_PORT of every master of a new cluster, this one included, separated by \
         commas; without meaning once there is state.",
    ),
    Flag::new("port", Number, Some("5050"), "Port to listen on."),
    Flag::new("quiet", Bool, Some("false"), "Write no log."),
    Flag::new(
        "raft_advertise",
        Text,
        None,
        "HOST:RAFT_PORT at which other masters reach this one, where it cannot be told from --peers or --ip.",
    ),
    Flag::new(
        "raft_ip",
        Text,
        None,
        "IP address on which masters speak to each other; that of --ip, or loopback as long as \
         nothing keeps strangers away.",
    ),
    Flag::new(
        "raft_log_keep",
        Number,
        Some("16777216"),
        "Bytes of the log kept for masters that lag behind; those that lag further get all rows.",
    ),
    Flag::new(
        "raft_port",
        Number,
        None,
        "Port on which masters speak to each other; 5052, or for a master alone any other when that is taken.",
    ),
    Flag::new(
        "require_agent_domain",
        Bool,
        Some("false"),
        "Refuse agents without a fault domain.",
    ),
    Flag::new(
        "roles",
        Text,
        None,
        "The only roles that frameworks may have, separated by commas.",
    ),
    Flag::new(
        "root_submissions",
        Bool,
        Some("true"),
        "Whether frameworks may run things as root.",
    ),
    Flag::new(
        "state_quota",
        Size,
        Some("64MB"),
        "What one principal's variables and leases may hold in the state service.",
    ),
    Flag::new(
        "weights",
        Text,
        None,
        "Weights of roles for a new cluster, such as one=2,two=0.5; later by the API.",
    ),
    Flag::new(
        "whitelist",
        Path,
        None,
        "File with the host names that are offered, one a line.",
    ),
    Flag::new(
        "work_dir",
        Path,
        None,
        "Folder for the cluster's state; required.",
    ),
    Flag::new(
        "zk",
        Text,
        None,
        "Where the leader publishes itself for old clients, zk://[user:password@]host:port,.../path; \
         masters agree among themselves without it.",
    ),
    Flag::new(
        "zk_session_timeout",
        Duration,
        Some("10secs"),
        "How long ZooKeeper takes a silent master for alive, 1secs to 1mins.",
    ),
];

const REFUSED: &[Refused] = &[
    ("quorum", "the quorum is the majority of the masters"),
    (
        "registry",
        "the state is always in the masters' own replicated log",
    ),
    (
        "registry_strict",
        "the state is always in the masters' own replicated log",
    ),
    (
        "modules",
        "there are no modules; what they did has to be built in",
    ),
    (
        "modules_dir",
        "there are no modules; what they did has to be built in",
    ),
    (
        "hooks",
        "there are no modules; what they did has to be built in",
    ),
    ("allocator", "there is one allocator, the hierarchical one"),
    ("framework_sorter", "there is one order, by dominant share"),
    ("role_sorter", "there is one order, by dominant share"),
    (
        "authenticate_frameworks",
        "it is of the v0 wire, which is not spoken; see authenticate_http_frameworks",
    ),
    ("master_contender", "masters agree among themselves"),
    ("master_detector", "masters agree among themselves"),
    ("ip_discovery_command", "give the address itself, with --ip"),
    (
        "acls",
        "there is no authorization yet: give credentials only to those you trust",
    ),
    (
        "rate_limits",
        "calls are served in turns, so that a busy framework delays itself alone",
    ),
    ("webui_dir", "there is no web interface in this version"),
    (
        "external_log_file",
        "logs go to standard error; redirect them",
    ),
];

/// The table of `tepui-master`.
pub(crate) const TABLE: Table = Table {
    binary: "tepui-master",
    about: "The master of a Tepui cluster: offers the agents' resources to frameworks.",
    flags: FLAGS,
    refused: REFUSED,
};
