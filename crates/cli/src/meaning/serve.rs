//! `brigade serve` as meant: a store's options, with keys made up where none were given.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use brigade_store::faults::Faults;
use brigade_store::{Backend, Credentials, Network, Options, Pretended};

use crate::args::{NetworkArgs, ServeArgs};
use crate::failure::Usage;

/// The size of objects that a store only pretends to have: the small ones of a benchmark.
const OBJECT_BYTES: u64 = 16 << 10;

/// A store to run.
pub(crate) struct Service {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) region: String,
    /// What the person should hear before it starts.
    pub(crate) warnings: Vec<String>,
}

/// The pair of keys that clients of a store use.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) access: String,
    pub(crate) secret: String,
}

impl Service {
    /// What `args` mean; an error where they make no sense.
    pub(crate) fn from_args(args: ServeArgs) -> Result<Self> {
        let backend = match (args.dir, args.memory) {
            (Some(folder), _) => Backend::Folder(folder),
            (None, true) => Backend::Memory,
            (None, false) => Backend::Synthetic,
        };
        let made_up = Keys::make_up()?;
        let keys = Keys {
            access: given(args.access_key, "--access-key")?.unwrap_or(made_up.access),
            secret: given(args.secret_key, "--secret-key")?.unwrap_or(made_up.secret),
        };
        let mut warnings = Vec::new();
        if !args.bind.is_loopback() {
            let heard = if args.tls { "" } else { " and, without --tls, listen in" };
            warnings.push(format!(
                "listening on {}: other machines can reach this store{heard}",
                args.bind
            ));
        }
        let mut faults = args.faults.as_deref().map(read_faults).transpose()?;
        if let (Some(faults), Some(seed)) = (&mut faults, args.network.seed) {
            faults.seed = seed;
        }
        if let Some(file) = &args.faults {
            warnings.push(format!(
                "this store misbehaves on purpose, as {} says: keep nothing in it",
                file.display()
            ));
        }
        let network = network(&args.network)?;
        if network != (Network { seed: network.seed, ..Network::default() }) {
            warnings.push(
                "this store pretends to be behind a network, as asked: its speed is not its own"
                    .into(),
            );
        }
        let options = Options {
            backend,
            pretended: Pretended {
                objects: args.objects.unwrap_or(0),
                object_size_bytes: args.object_size.unwrap_or(OBJECT_BYTES),
            },
            listen: SocketAddr::new(args.bind, args.port),
            credentials: vec![Credentials::new(&keys.access, &keys.secret)],
            buckets: args.bucket,
            tls: args.tls,
            region: Some(args.region.clone()),
            faults,
            network,
            ..Options::default()
        };
        Ok(Self { options, keys, region: args.region, warnings })
    }
}

impl Keys {
    /// Random ones, from the operating system: a store may be opened to a network.
    pub(crate) fn make_up() -> Result<Self> {
        let made = File::open("/dev/urandom").and_then(|mut source| {
            let mut noise = [0; 60];
            source.read_exact(&mut noise)?;
            let (access, secret) = noise.split_at(20);
            Ok(Self {
                access: spell(access, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
                secret: spell(
                    secret,
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01234567",
                ),
            })
        });
        made.context("cannot read /dev/urandom to make up keys; give --access-key and --secret-key")
    }
}

/// The network that the options describe.
fn network(args: &NetworkArgs) -> Result<Network> {
    let network = Network {
        latency: args.latency.unwrap_or_default(),
        jitter: args.jitter.unwrap_or_default(),
        connection_bytes_per_s: args.bandwidth_per_connection,
        total_bytes_per_s: args.bandwidth_total,
        max_requests_per_s: args.max_rps,
        slow_parts: args.slow_parts,
        slow_start: args.slow_start,
        seed: args.seed.unwrap_or_default(),
    };
    if network.jitter > network.latency {
        return Err(Usage::error(
            "--jitter is more than --latency, and no answer comes before it was asked for; give less \
             of it",
        ));
    }
    // Whatever else there is to complain of.
    network.check().map_err(|error| Usage::error(error.to_string()))?;
    Ok(network)
}

/// Reads a script of faults; a mistake in it is a mistake of the command line.
fn read_faults(file: &Path) -> Result<Faults> {
    let wrong = |problem: String| {
        Usage::error(format!("cannot use --faults {}: {problem}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Faults::parse(&text).map_err(|error| wrong(error.to_string()))
}

fn given(typed: Option<String>, option: &str) -> Result<Option<String>> {
    match typed {
        Some(key) if key.is_empty() || key.chars().any(|c| !c.is_ascii_graphic()) => {
            // The key itself is not repeated: it is a secret, and so may end up in no log.
            Err(Usage::error(format!(
                "{option} is empty or has characters other than printable ASCII; choose another"
            )))
        }
        other => Ok(other),
    }
}

/// Letters for bytes. Where the alphabet's length does not divide 256, the first letters come a
/// little more often, which costs 40 letters less than a bit of their 230.
fn spell(noise: &[u8], alphabet: &[u8]) -> String {
    noise.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use brigade_store::SlowParts;

    use super::*;
    use crate::args;

    fn read(line: &str) -> Result<Service> {
        let typed: Vec<OsString> =
            format!("brigade serve {line}").split_whitespace().map(OsString::from).collect();
        match args::parse(&typed) {
            Ok(args::Cli { command: args::Command::Serve(args) }) => Service::from_args(*args),
            _ => panic!("{line} is no serve"),
        }
    }

    #[test]
    fn the_place_decides_the_backend() {
        let backend = |line| read(line).expect("fine").options.backend;
        assert_eq!(backend("data"), Backend::Folder("data".into()));
        assert_eq!(backend("--memory"), Backend::Memory);
        assert_eq!(backend("--synthetic"), Backend::Synthetic);
    }

    #[test]
    fn there_is_exactly_one_place() {
        for line in ["", "data --memory", "--memory --synthetic"] {
            let typed: Vec<OsString> =
                format!("brigade serve {line}").split_whitespace().map(OsString::from).collect();
            assert!(args::parse(&typed).is_err(), "{line}");
        }
    }

    #[test]
    fn keys_are_made_up_unless_given() {
        let (one, other) = (read("--memory").expect("fine"), read("--memory").expect("fine"));
        assert_ne!(one.keys.secret, other.keys.secret);
        assert_eq!((one.keys.access.len(), one.keys.secret.len()), (20, 40));
        let given = read("--memory --access-key me --secret-key mine").expect("fine").keys;
        assert_eq!((given.access.as_str(), given.secret.as_str()), ("me", "mine"));
        assert!(read("--memory --access-key=").is_err());
    }

    #[test]
    fn faults_are_read_and_warned_about() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("faults.toml");
        let write = |text: &str| std::fs::write(&file, text).expect("written");
        let line = format!("--memory --faults {}", file.display());
        let complaint = || {
            let error = read(&line).err().expect("refused");
            assert!(error.is::<Usage>(), "{error}");
            error.to_string()
        };
        assert!(complaint().contains(&file.display().to_string()));
        write("[[rule]]\noperation = \"GetObject\"\ncut = { at = \"response\" }");
        let service = read(&line).expect("fine");
        assert_eq!(service.options.faults.expect("faults").rules.len(), 1);
        assert!(service.warnings.join("").contains("misbehaves on purpose"));
        write("[[rule]]\ndelay = \"1s\"\n[[rule]]\noperatoin = \"GetObject\"");
        let said = complaint();
        for part in ["faults.toml: rule 2: unknown field `operatoin`", "`operation`"] {
            assert!(said.contains(part) && !said.contains('\n'), "{said}");
        }
        assert!(read("--memory").expect("fine").options.faults.is_none());
    }

    #[test]
    fn a_network_is_as_asked_and_warned_about() {
        let line = "--synthetic --latency 50ms --jitter 10ms --bandwidth-per-connection 85MB/s \
                    --bandwidth-total 400MB/s --max-rps 200 --slow-parts 0.1%:5s --seed 7";
        let service = read(line).expect("fine");
        let slow = SlowParts { chance: 0.001, delay: Duration::from_secs(5) };
        let expected = Network {
            latency: Duration::from_millis(50),
            jitter: Duration::from_millis(10),
            connection_bytes_per_s: Some(85_000_000),
            total_bytes_per_s: Some(400_000_000),
            max_requests_per_s: Some(200),
            slow_parts: Some(slow),
            slow_start: false,
            seed: 7,
        };
        assert_eq!(service.options.network, expected);
        assert!(service.warnings.join("").contains("its speed is not its own"));
        assert_eq!(read("--synthetic").expect("fine").options.network, Network::default());
        assert!(read("--synthetic --seed 7").expect("fine").warnings.is_empty());
        let error = read("--synthetic --latency 1ms --jitter 2ms").err().expect("refused");
        assert!(error.is::<Usage>() && error.to_string().starts_with("--jitter is more than"));
        let error = read("--synthetic --latency 0s --slow-start").err().expect("refused");
        assert!(error.is::<Usage>(), "{error}");
    }

    #[test]
    fn the_documented_networks_can_be_typed() {
        let documented = include_str!("../../../../docs/NETWORKS.md");
        let lines = documented.lines().filter_map(|line| line.strip_prefix("    brigade serve "));
        let networks: Vec<_> =
            lines.map(|line| read(line).expect("fine").options.network).collect();
        assert!(networks.len() >= 5 && networks.contains(&Network::default()), "{networks:?}");
    }

    #[test]
    fn only_loopback_goes_without_a_warning() {
        let warnings = |line| read(line).expect("fine").warnings;
        assert!(warnings("--memory").is_empty() && warnings("--memory --bind ::1").is_empty());
        let said = warnings("--memory --bind 0.0.0.0").join("");
        assert!(
            said.contains("other machines can reach") && said.contains("without --tls"),
            "{said}"
        );
        assert!(!warnings("--memory --bind 0.0.0.0 --tls").join("").contains("without --tls"));
    }
}
