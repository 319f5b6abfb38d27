//! The agent's flags: Mesos' names, defaults and forms, as far as they mean something here.

use tepui_server::flags::{
    Flag,
    Kind::{Bool, Duration, Fraction, Number, Path, Text},
    Refused, Table,
};

const FLAGS: &[Flag] = &[
    Flag::new(
        "advertise_ip",
        Text,
        None,
        "IP address told to masters and frameworks; not bound.",
    ),
    Flag::new(
        "advertise_port",
        Number,
        None,
        "Port told to masters and frameworks; not bound.",
    ),
    Flag::new(
        "attributes",
        Text,
        None,
        "Attributes, such as rack:r1;zone:z2;cores:8.",
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
    Flag::new(
        "cgroups_enable_cfs",
        Bool,
        Some("false"),
        "Limit tasks to the cpus they asked for.",
    ),
    Flag::new(
        "cgroups_hierarchy",
        Path,
        Some("/sys/fs/cgroup"),
        "Where the cgroups are mounted.",
    ),
    Flag::new(
        "cgroups_limit_swap",
        Bool,
        Some("false"),
        "Let the memory limit cover swap, too.",
    ),
    Flag::new(
        "cgroups_root",
        Text,
        Some("tepui"),
        "Name of the cgroup below which tasks run.",
    ),
    Flag::new(
        "container_disk_watch_interval",
        Duration,
        Some("15secs"),
        "Time between two looks at the disk that tasks use.",
    ),
    Flag::new(
        "containerizers",
        Text,
        None,
        "How tasks may run: docker, process (also called mesos), separated by commas; \
         docker when its engine answers, and process, when not given.",
    ),
    Flag::new(
        "credential",
        Path,
        None,
        "File with the principal and secret for the masters, as JSON.",
    ),
    Flag::new(
        "default_role",
        Text,
        Some("*"),
        "Role of resources that name none.",
    ),
    Flag::new(
        "disk_watch_interval",
        Duration,
        Some("1mins"),
        "Time between two looks at the disk's usage.",
    ),
    Flag::new(
        "docker_config",
        Text,
        None,
        "Registries and their credentials: Docker's config.json.",
    ),
    Flag::new(
        "docker_kill_orphans",
        Bool,
        Some("true"),
        "Remove containers of lost tasks at start.",
    ),
    Flag::new(
        "docker_remove_delay",
        Duration,
        Some("0ns"),
        "How long the container of an ended task stays at the engine.",
    ),
    Flag::new(
        "docker_socket",
        Path,
        Some("/var/run/docker.sock"),
        "Socket of the Docker engine.",
    ),
    Flag::new("domain", Text, None, "Fault domain of this agent, as JSON."),
    Flag::new(
        "enforce_container_disk_quota",
        Bool,
        Some("false"),
        "End tasks that use more disk than they asked for.",
    ),
    Flag::new(
        "executor_environment_variables",
        Text,
        None,
        "Variables of every task's environment, as a JSON object.",
    ),
    Flag::new(
        "executor_shutdown_grace_period",
        Duration,
        Some("5secs"),
        "Time between SIGTERM and SIGKILL for tasks that name none.",
    ),
    Flag::new(
        "frameworks_home",
        Text,
        Some(""),
        "Folder in which relative URIs of tasks are found.",
    ),
    Flag::new(
        "gc_delay",
        Duration,
        Some("1weeks"),
        "How long sandboxes of ended tasks stay.",
    ),
    Flag::new(
        "gc_disk_headroom",
        Fraction,
        Some("0.1"),
        "Part of the disk to keep free: sandboxes go earlier when it fills.",
    ),
    Flag::new(
        "hostname",
        Text,
        None,
        "Host name told to masters and frameworks.",
    ),
    Flag::new(
        "hostname_lookup",
        Bool,
        Some("true"),
        "When --hostname is not given: the machine's own name, unless it does not lead to --advertise_ip.",
    ),
    Flag::new(
        "http_credentials",
        Path,
        None,
        "File with principals and secrets, as JSON.",
    ),
    Flag::new(
        "ip",
        Text,
        Some("127.0.0.1"),
        "IP address to listen on; 0.0.0.0 for all of them.",
    ),
    Flag::new(
        "launcher_dir",
        Path,
        None,
        "Folder of tepui-shim; that of this program when not given.",
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
        "master",
        Text,
        None,
        "Masters, host:port (5050 when left out), separated by commas; required. A name stands for \
         all of its addresses, file://PATH for what the file holds, zk://HOST:PORT,.../PATH for the \
         leader that is published there. One master leads to the others.",
    ),
    Flag::new(
        "oversubscribed_resources_interval",
        Duration,
        Some("15secs"),
        "Time between two estimates of what can be oversubscribed.",
    ),
    Flag::new("port", Number, Some("5051"), "Port to listen on."),
    Flag::new("quiet", Bool, Some("false"), "Write no log."),
    Flag::new(
        "reconfiguration_policy",
        Text,
        Some("equal"),
        "Changes of resources and attributes between starts: equal (none) or additive.",
    ),
    Flag::new(
        "recover",
        Text,
        Some("reconnect"),
        "What to do with tasks of an earlier life: reconnect, or cleanup (end them and exit).",
    ),
    Flag::new(
        "registration_backoff_factor",
        Duration,
        Some("1secs"),
        "Bound of the first wait between two registrations; it doubles up to a minute.",
    ),
    Flag::new(
        "resource_estimator",
        Text,
        None,
        "What may be given away once more, to frameworks that bear losing it: \
         fixed:RESOURCES, such as fixed:cpus:4;mem:1024, or usage, for the cpus that tasks hold \
         and do not use; nothing when not given.",
    ),
    Flag::new(
        "resources",
        Text,
        None,
        "Resources, such as cpus:8;mem:8192;ports:[31000-32000], or a JSON array; what is not \
         named of cpus, mem, disk, ports and gpus is detected.",
    ),
    Flag::new(
        "revocable_cpu_low_priority",
        Bool,
        Some("true"),
        "Let tasks on revocable cpus come last when the processors are contended.",
    ),
    Flag::new(
        "runtime_dir",
        Path,
        None,
        "Folder for the state of containers; in work_dir when not given.",
    ),
    Flag::new(
        "sandbox_directory",
        Text,
        Some("/mnt/mesos/sandbox"),
        "Where a container with an image sees its sandbox.",
    ),
    Flag::new(
        "strict",
        Bool,
        Some("true"),
        "Taken, and always so: unreadable state stops the agent.",
    ),
    Flag::new(
        "switch_user",
        Bool,
        Some("true"),
        "Run tasks as their users, when this agent is root.",
    ),
    Flag::new(
        "work_dir",
        Path,
        None,
        "Folder for sandboxes and state; required.",
    ),
    Flag::new(
        "zk_session_timeout",
        Duration,
        Some("10secs"),
        "With --master=zk://: how long a silent connection to ZooKeeper is kept, 1secs to 1mins.",
    ),
];

const MODULES: &str = "there are no modules; what they did has to be built in";
const ISOLATION: &str =
    "tasks are isolated by namespaces and cgroups wherever the kernel allows it";
const IMAGES: &str = "images are the Docker engine's business: use the docker containerizer";
const PORTS: &str = "ports are not policed";
const EXECUTORS: &str = "tasks are run by the agent itself, without executor programs";

const REFUSED: &[Refused] = &[
    (
        "acls",
        "there is no authorization yet: give credentials only to those you trust",
    ),
    ("appc_store_dir", IMAGES),
    (
        "authenticatee",
        "agents authenticate with --credential, over the link's HTTP header",
    ),
    (
        "authorizer",
        "there is no authorization yet: give credentials only to those you trust",
    ),
    (
        "container_logger",
        "output is written to bounded, rotated files in the sandbox",
    ),
    (
        "default_container_info",
        "let frameworks say how their tasks run",
    ),
    (
        "docker",
        "the engine is spoken to over --docker_socket, without its command",
    ),
    (
        "docker_mesos_image",
        "the agent needs no image: tasks survive it without one",
    ),
    ("docker_registry", IMAGES),
    (
        "docker_stop_timeout",
        "it is the task's kill policy that says how long a kill may take",
    ),
    ("docker_store_dir", IMAGES),
    ("enforce_container_ports", PORTS),
    ("executor_registration_timeout", EXECUTORS),
    ("executor_reregistration_timeout", EXECUTORS),
    (
        "external_log_file",
        "logs go to standard error; redirect them",
    ),
    ("fetcher_cache_dir", "URIs are fetched anew for each task"),
    ("fetcher_cache_size", "URIs are fetched anew for each task"),
    (
        "hadoop_home",
        "URIs are fetched over http, https, ftp or from files",
    ),
    ("hooks", MODULES),
    ("http_command_executor", EXECUTORS),
    ("http_executor_domain_sockets", EXECUTORS),
    ("image_providers", IMAGES),
    ("image_provisioner_backend", IMAGES),
    ("ip_discovery_command", "give the address itself, with --ip"),
    ("isolation", ISOLATION),
    ("launcher", ISOLATION),
    (
        "master_detector",
        "masters agree among themselves: name them with --master",
    ),
    ("modules", MODULES),
    ("modules_dir", MODULES),
    (
        "network_cni_config_dir",
        "networks are the Docker engine's business",
    ),
    (
        "network_cni_plugins_dir",
        "networks are the Docker engine's business",
    ),
    ("qos_controller", MODULES),
    ("recovery_timeout", EXECUTORS),
    (
        "resource_provider_config_dir",
        "there are no resource providers",
    ),
    ("secret_resolver", MODULES),
    (
        "systemd_enable_support",
        "tasks are kept apart from the agent's unit by shims",
    ),
];

/// The table of `tepui-agent`.
pub(crate) const TABLE: Table = Table {
    binary: "tepui-agent",
    about: "The agent of a Tepui cluster: offers a machine's resources and runs tasks on it.",
    flags: FLAGS,
    refused: REFUSED,
};
