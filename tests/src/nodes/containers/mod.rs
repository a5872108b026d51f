//! A registry in containers, as Docker Trusted Registry is one: Postgres with users, teams, organisations and
//! repositories in a container, and beside it the distribution registry, whose images are in S3 and whose configuration,
//! TLS key and users are files of the node.

mod client;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use tokio::process::Command;

use crate::nodes::machine::{Node, write_program};
use crate::nodes::postgres::{Cluster, free_port};
use crate::nodes::registry::{CONFIGURATION, MAIN_DATABASE};
use crate::standin::s3::{ACCESS_KEY, SECRET_KEY};
use crate::standin::world::{ProtectedGroup, StandIn};

pub use self::client::{Client, Pushed};

/// The container of Postgres.
pub const POSTGRES: &str = "docker_trusted_registry_postgres";
/// The container of the registry.
pub const STORAGE: &str = "docker_trusted_registry_image_storage_0";
/// The bucket in which the registry keeps images.
pub const IMAGES: &str = "registry-images";

/// How an application's containers are set up, the same on every node of it.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// The image of both containers.
    pub image: String,
    /// The port of 127.0.0.1 at which the registry serves.
    pub port: u16,
    /// What stays when a node goes: the load balancer's certificate authority and what it asks for.
    pub outside: PathBuf,
    /// Options of `docker run` for Postgres' container, such as its environment.
    pub postgres_options: String,
    /// Whether a new machine has the image and the application's first configuration: the first one, whose AMI and
    /// installer brought them.
    provisioned: Arc<AtomicBool>,
    /// Whether the next machines have the image as well.
    pub with_image: bool,
}

impl Application {
    /// Sets an application up in a stand-in; `image` is on this machine's engine.
    pub fn new(world: &StandIn, name: &str, image: &str) -> Result<Self> {
        let outside = world.directory().join("outside").join(name);
        std::fs::create_dir_all(&outside)?;
        std::fs::write(outside.join("probes"), "")?;
        world.s3().create_bucket(IMAGES)?;
        Ok(Self {
            name: name.to_owned(),
            image: image.to_owned(),
            port: free_port()?,
            outside,
            postgres_options: String::new(),
            provisioned: Arc::new(AtomicBool::new(false)),
            with_image: false,
        })
    }

    /// Returns the registry's name in images' names.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Describes the group whose nodes run this application.
    pub fn group(&self, bucket: &str) -> ProtectedGroup {
        let (application, bucket) = (self.clone(), bucket.to_owned());
        ProtectedGroup {
            name: self.name.clone(),
            application: self.name.clone(),
            user_data: Arc::new(move |node| {
                let (application, bucket) = (application.clone(), bucket.clone());
                async move { application.prepare(&node, &bucket).await }.boxed()
            }),
            retain_on_abandon: false,
            tagged: true,
        }
    }

    /// Prepares a fresh node, as AMI and user data would: an engine, the commands, the agent's settings. Only the first
    /// one has the image and the configuration of a fresh installation.
    pub async fn prepare(&self, node: &Node, bucket: &str) -> Result<()> {
        let engine = node.start_engine().await?;
        let first = !self.provisioned.swap(true, Ordering::SeqCst);
        if first || self.with_image {
            engine.give(&self.image).await?;
        }
        for path in CONFIGURATION {
            std::fs::create_dir_all(node.root().join(path))?;
        }
        if first {
            self.install(node).await?;
        }
        let cluster = self.postgres(node, &engine.host())?;
        self.write_commands(node)?;
        self.write_settings(node, bucket, &cluster)?;
        node.attach(cluster);
        Ok(())
    }

    /// Describes Postgres' container. Its data are in a volume of the engine.
    fn postgres(&self, node: &Node, host: &str) -> Result<Cluster> {
        let port = free_port()?;
        let start = format!(
            r"#!/bin/sh -eu
export DOCKER_HOST={host}
docker start {POSTGRES} >/dev/null 2>&1 || exec docker run --pull never --detach --name {POSTGRES} --network host \
    --env PGPORT={port} --env AUTH_HOST=trust {options} --volume {POSTGRES}:/var/lib/postgresql/data {image} postgres >/dev/null
",
            options = self.postgres_options,
            image = self.image,
        );
        let stop =
            format!("#!/bin/sh -eu\nDOCKER_HOST={host} exec docker stop {POSTGRES} >/dev/null\n");
        Cluster::in_container(&node.root().join("var/lib/postgresql"), port, &start, &stop)
    }

    fn write_commands(&self, node: &Node) -> Result<()> {
        let [data, etc] = CONFIGURATION.map(|path| format!("\"$REKINDLE_ROOT/{path}\""));
        let start = format!(
            r"#!/bin/sh -eu
docker start {STORAGE} >/dev/null 2>&1 || exec docker run --pull never --detach --name {STORAGE} --network host \
    --volume {etc}:/etc/docker/registry:ro --volume {data}:/var/local/dtr:ro {image} registry >/dev/null
",
            image = self.image,
        );
        let stop = format!(
            "#!/bin/sh -eu\ndocker stop --time 5 {STORAGE} >/dev/null 2>&1 || ! docker inspect {STORAGE} >/dev/null 2>&1\n"
        );
        // What a load balancer asks, with the certificate authority that clients have, and everything that the story
        // expects of the registry: the path and the credentials of a line each.
        let health = format!(
            r#"#!/bin/sh -eu
docker exec {POSTGRES} pg_isready --quiet
ask() {{ curl --silent --show-error --fail --max-time 5 --cacert '{outside}/ca.pem' --output /dev/null "$@"; }}
while read -r path user; do
  ask --user "$user" --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' "https://{address}$path"
done < '{outside}/probes'
code=$(curl --silent --max-time 5 --cacert '{outside}/ca.pem' --output /dev/null --write-out '%{{http_code}}' https://{address}/v2/)
[ "$code" = 401 ]
"#,
            outside = self.outside.display(),
            address = self.address(),
        );
        let programs = node.root().join("usr/local/bin");
        for (name, text) in [("start", start), ("stop", stop), ("health", health)] {
            write_program(&programs.join(format!("registry-{name}")), &text)?;
        }
        Ok(())
    }

    fn write_settings(&self, node: &Node, bucket: &str, cluster: &Cluster) -> Result<()> {
        let paths = CONFIGURATION.map(|path| format!("\"/{path}\"")).join(", ");
        let settings = format!(
            r#"application = "{application}"
bucket = "{bucket}"

[configuration]
paths = [{paths}]

[postgres]
container = "{POSTGRES}"
ready_timeout_seconds = 60

[images]
containers = ["{POSTGRES}", "{STORAGE}"]

[commands]
start_postgres = ["{start}"]
start = ["{programs}/registry-start"]
stop = ["{programs}/registry-stop"]
health = ["{programs}/registry-health"]
health_timeout_seconds = 60
"#,
            application = self.name,
            start = cluster.start_script().display(),
            programs = node.root().join("usr/local/bin").display(),
        );
        let path = node.root().join("etc/rekindle/node.toml");
        std::fs::write(&path, settings).with_context(|| format!("write {}", path.display()))
    }

    /// Writes what an installer would: a certificate authority that clients get, a key, and a configuration without users.
    async fn install(&self, node: &Node) -> Result<()> {
        let [data, etc] = CONFIGURATION.map(|path| node.root().join(path));
        let tls = data.join("tls");
        std::fs::create_dir_all(&tls)?;
        let script = r#"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=Registry authority' \
    -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:true
openssl req -newkey rsa:2048 -nodes -subj '/CN=registry' -keyout key.pem -out request.pem
echo 'subjectAltName=IP:127.0.0.1' > names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem
chmod 0600 key.pem
rm request.pem names ca.key
cp ca.pem "$0"
"#;
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", script]).arg(&self.outside);
        let made = command
            .current_dir(&tls)
            .stdin(Stdio::null())
            .output()
            .await?;
        let errors = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "openssl: {errors}");
        let environment = node.environment()?;
        let configuration = format!(
            r"version: 0.1
log: {{level: warn}}
http:
  addr: {address}
  secret: the same on every node
  tls: {{certificate: /var/local/dtr/tls/cert.pem, key: /var/local/dtr/tls/key.pem}}
auth: {{htpasswd: {{realm: registry, path: /etc/docker/registry/htpasswd}}}}
storage:
  s3:
    regionendpoint: {endpoint}
    region: {region}
    bucket: {IMAGES}
    accesskey: {ACCESS_KEY}
    secretkey: {SECRET_KEY}
    secure: false
    rootdirectory: /dtr
",
            address = self.address(),
            endpoint = environment["AWS_ENDPOINT_URL"],
            region = environment["AWS_REGION"],
        );
        std::fs::write(etc.join("config.yml"), configuration)?;
        // Without a user the registry makes one up; this one has no password that anybody knows.
        let nobody = "nobody:$2a$05$0000000000000000000000000000000000000000000000000000\n";
        std::fs::write(etc.join("htpasswd"), nobody).context("write the users")
    }

    /// Adds users with their passwords, with teams, organisations and repositories around them: rows of the database, and
    /// from these the file that the registry reads.
    pub async fn add_users(&self, node: &Node, users: &[(&str, &str)]) -> Result<()> {
        let client = node.cluster()?.connect(MAIN_DATABASE).await?;
        client
            .batch_execute(
                "CREATE SCHEMA IF NOT EXISTS hub;
                CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA hub;
                CREATE TABLE IF NOT EXISTS hub.organisation (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                  name text NOT NULL UNIQUE);
                CREATE TABLE IF NOT EXISTS hub.account (name text PRIMARY KEY, password text NOT NULL);
                CREATE TABLE IF NOT EXISTS hub.team (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                  organisation int NOT NULL REFERENCES hub.organisation, name text NOT NULL, UNIQUE (organisation, name));
                CREATE TABLE IF NOT EXISTS hub.member (team int REFERENCES hub.team, account text REFERENCES hub.account,
                  PRIMARY KEY (team, account));
                CREATE TABLE IF NOT EXISTS hub.repository (organisation int NOT NULL REFERENCES hub.organisation,
                  name text NOT NULL, readers int REFERENCES hub.team, PRIMARY KEY (organisation, name));",
            )
            .await
            .context("create the hub's tables")?;
        for (name, password) in users {
            client
                .execute(
                    "INSERT INTO hub.account VALUES ($1, hub.crypt($2, hub.gen_salt('bf', 5)))",
                    &[name, password],
                )
                .await?;
            let organisation = format!("{name}-and-friends");
            client
                .execute(
                    "WITH o AS (INSERT INTO hub.organisation (name) VALUES ($1) RETURNING id),
                      t AS (INSERT INTO hub.team (organisation, name) SELECT id, 'owners' FROM o RETURNING id, organisation),
                      m AS (INSERT INTO hub.member SELECT id, $2 FROM t)
                    INSERT INTO hub.repository SELECT organisation, 'application', id FROM t",
                    &[&organisation, name],
                )
                .await?;
        }
        let all = client.query(
            "SELECT name || ':' || password FROM hub.account ORDER BY name",
            &[],
        );
        let lines: Vec<String> = all.await?.iter().map(|row| row.get(0)).collect();
        let users = node.root().join(CONFIGURATION[1]).join("htpasswd");
        std::fs::write(users, lines.join("\n") + "\n").context("write the users")
    }

    /// Lets every health check from now on ask for an image's manifest by its digest, as this user.
    pub fn expect(&self, user: (&str, &str), image: &Pushed) -> Result<()> {
        let probes = self.outside.join("probes");
        let text = std::fs::read_to_string(&probes)?;
        let (name, password) = user;
        let path = format!("/v2/{}/manifests/{}", image.repository, image.digest);
        std::fs::write(&probes, text + &format!("{path} {name}:{password}\n"))
            .context("write what the load balancer asks for")
    }
}

/// Returns the SHA-256 fingerprint of the certificate that the registry shows.
pub async fn tls_identity(application: &Application) -> Result<String> {
    let script = "openssl s_client -connect \"$0\" -CAfile \"$1/ca.pem\" -verify_return_error </dev/null 2>/dev/null |
        openssl x509 -noout -fingerprint -sha256";
    let mut command = Command::new("bash");
    command
        .args(["-o", "pipefail", "-c", script, &application.address()])
        .arg(&application.outside)
        .stdin(Stdio::null());
    let output = command.output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the registry's certificate is not to be trusted: {errors}"
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
