//! Creates clusters: their directories, settings and scripts.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Cluster;
use super::programs::{as_postgres, bin_directory, chown_to_postgres, free_port, quoted, run};
use crate::nodes::write_program;

impl Cluster {
    /// Initialises a cluster in a directory that is absent or empty, and does not start it.
    ///
    /// Its superuser is `postgres`, trusted from this machine. The server listens on a free port of 127.0.0.1 and on a
    /// socket within the directory.
    pub async fn create(directory: &Path) -> Result<Self> {
        let cluster = Self::create_directories(directory)?;
        let data = cluster.data();
        let data = data.to_string_lossy();
        let initdb = cluster.bin.join("initdb");
        let arguments = [
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--no-instructions",
        ];
        run(&as_postgres(&initdb, &arguments)).await?;
        cluster.with_settings_and_scripts()
    }

    /// Copies a cluster that was never started into a directory that is absent or empty. Both have the same system
    /// identifier.
    pub async fn copy(&self, directory: &Path) -> Result<Self> {
        let copy = Self::create_directories(directory)?;
        let from = format!("{}/.", self.data().display());
        let to = copy.data().display().to_string();
        run(&["cp", "-a", &from, &to].map(str::to_owned)).await?;
        copy.with_settings_and_scripts()
    }

    /// Describes a server that a container runs on a port of 127.0.0.1. The two shell scripts start and stop it.
    pub fn in_container(directory: &Path, port: u16, start: &str, stop: &str) -> Result<Self> {
        let cluster = Self {
            directory: std::path::absolute(directory)?,
            bin: bin_directory()?,
            port,
        };
        std::fs::create_dir_all(&cluster.directory)?;
        write_program(&cluster.start_script(), start)?;
        write_program(&cluster.stop_script(), stop)?;
        Ok(cluster)
    }

    /// Changes a setting of the server. The change takes effect at the next start.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut settings = std::fs::read_to_string(&path)?;
        writeln!(settings, "{name} = '{value}'")?;
        std::fs::write(&path, settings).with_context(|| format!("write {}", path.display()))
    }

    fn create_directories(directory: &Path) -> Result<Self> {
        let cluster = Self {
            directory: std::path::absolute(directory)?,
            bin: bin_directory()?,
            port: free_port()?,
        };
        std::fs::create_dir_all(&cluster.directory)?;
        for part in ["data", "run"] {
            let path = cluster.directory.join(part);
            std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
            chown_to_postgres(&path)?;
        }
        Ok(cluster)
    }

    fn with_settings_and_scripts(self) -> Result<Self> {
        self.configure()?;
        self.write_script("start", &self.start_arguments())?;
        self.write_script("stop", &self.control_arguments(&["stop", "-m", "fast"]))?;
        Ok(self)
    }

    fn configure(&self) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut settings = std::fs::read_to_string(&path)?;
        write!(
            settings,
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             shared_buffers = 32MB\nmax_connections = 50\nmax_locks_per_transaction = 200\nlogging_collector = off\n\
             dynamic_shared_memory_type = mmap\n",
            self.port,
            self.socket_directory().display()
        )?;
        std::fs::write(&path, settings).with_context(|| format!("write {}", path.display()))
    }

    fn control_arguments(&self, verb: &[&str]) -> Vec<String> {
        let data = self.data();
        let data = data.to_string_lossy();
        let mut arguments = vec!["-D", &data, "-w", "-t", "60", "-s"];
        arguments.extend(verb);
        as_postgres(&self.bin.join("pg_ctl"), &arguments)
    }

    fn start_arguments(&self) -> Vec<String> {
        let log = self.log();
        self.control_arguments(&["-l", &log.to_string_lossy(), "start"])
    }

    /// Writes an executable script that runs one `pg_ctl`. It succeeds if the server already has the wanted state.
    fn write_script(&self, verb: &str, arguments: &[String]) -> Result<()> {
        let status = self.control_arguments(&["status"]);
        let wanted = if verb == "start" { "" } else { "! " };
        let script = format!(
            "#!/bin/sh\n# Generated. Succeeds if there is nothing to {verb}.\nif {wanted}{} >/dev/null 2>&1; then\n  \
             exit 0\nfi\nexec {} </dev/null >/dev/null\n",
            quoted(&status),
            quoted(arguments)
        );
        write_program(&self.directory.join(verb), &script)
    }
}
