//! Gates on a node: shell scripts that wrap the shipped agent and the programs that it runs, and kill the agent where a
//! run requests it. The binaries themselves are the shipped ones.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::fixtures::protected_groups::change_settings;
use crate::nodes::machine::{Node, write_program};
use crate::nodes::postgres::bin_directory;

/// The programs of Postgres that the agent runs.
const TOOLS: [&str; 4] = ["psql", "pg_dump", "pg_dumpall", "pg_restore"];

/// The application's commands.
const COMMANDS: [&str; 3] = ["registry-start", "registry-stop", "registry-health"];

/// The multi-threaded libfaketime of a Debian machine.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Whether the agent is killed when a program starts, or when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Before the program runs. It then runs without the agent.
    Start,
    /// After the program's end, before the agent can handle it.
    Exit,
}

impl Edge {
    /// Returns the edge's name in the files of the gates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exit => "exit",
        }
    }
}

/// The requests of a run to the gates of all nodes of an application: files in one directory.
#[derive(Debug, Clone)]
pub struct Gates {
    directory: PathBuf,
}

impl Gates {
    /// Creates the directory of the files.
    pub fn new(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Kills the agent at the `nth` start or exit of a program from now on.
    pub fn at_child(&self, program: &str, edge: Edge, nth: u32) -> Result<()> {
        self.write("child", &format!("{program} {} {nth}\n", edge.name()))
    }

    /// Kills the agent after its next log line that contains this text.
    pub fn at_line(&self, text: &str) -> Result<()> {
        self.write("line", text)
    }

    /// Runs a shell command before the next start of a program.
    pub fn before(&self, program: &str, command: &str) -> Result<()> {
        self.write(&format!("before-{program}"), command)
    }

    /// Kills the next process of a program while it runs.
    pub fn kill(&self, program: &str) -> Result<()> {
        self.write(&format!("kill-{program}"), "")
    }

    /// Shifts the agent's clock by this number of minutes.
    pub fn skew(&self, minutes: i64) -> Result<()> {
        self.write("skew", &format!("{minutes:+}m"))
    }

    /// Returns whether the machine has libfaketime, which shifts the clock.
    pub fn can_skew() -> bool {
        Path::new(FAKETIME).exists()
    }

    /// Withdraws all requests, and returns whether one took effect.
    pub fn open(&self) -> Result<bool> {
        let hit = self.directory.join("hit").exists();
        for entry in std::fs::read_dir(&self.directory)? {
            std::fs::remove_file(entry?.path()).context("open the gates")?;
        }
        Ok(hit)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Installs the agent's own gate on a node that has just begun to boot: SSM may deliver before the node is prepared.
    pub fn install_mover(&self, node: &Node) -> Result<()> {
        let programs = node.root().join("usr/local/bin");
        std::fs::create_dir_all(&programs)
            .with_context(|| format!("create {}", programs.display()))?;
        write_program(&programs.join("mv"), &self.mover())?;
        write_program(&programs.join("cut-at-line"), &self.cutter())
    }

    /// Installs the other gates on a prepared node.
    pub fn install(&self, node: &Node) -> Result<()> {
        let programs = node.root().join("usr/local/bin");
        let tools = bin_directory()?;
        for tool in TOOLS {
            write_program(&programs.join(tool), &self.gate(tool, &tools.join(tool)))?;
        }
        for command in COMMANDS {
            let (path, real) = (
                programs.join(command),
                programs.join(format!("{command}.real")),
            );
            std::fs::rename(&path, &real).with_context(|| format!("move {}", path.display()))?;
            write_program(&path, &self.gate(command, &real))?;
        }
        let start = node.cluster()?.start_script();
        let path = programs.join("start-postgres");
        write_program(&path, &self.gate("start-postgres", &start))?;
        change_settings(
            node,
            &format!("[\"{}\"]", start.display()),
            &format!("[\"{}\"]", path.display()),
        )
    }

    fn gate(&self, program: &str, real: &Path) -> String {
        format!(
            r#"#!/bin/sh
# Generated. Runs the real program, and kills the process that started it if the run requests it.
gates='{gates}'
cut() {{
  [ -e "$gates/child" ] || return 0
  read -r program edge nth < "$gates/child" || return 0
  [ "$program $edge" = "{program} $1" ] || return 0
  if [ "$nth" -gt 1 ]; then
    echo "$program $edge $((nth - 1))" > "$gates/child"
    return 0
  fi
  /bin/mv "$gates/child" "$gates/hit" 2>/dev/null && kill -KILL "$PPID"
}}
if [ -e "$gates/before-{program}" ] && [ "$*" != --version ]; then
  /bin/mv "$gates/before-{program}" "$gates/hit" 2>/dev/null && . "$gates/hit" >/dev/null 2>&1
fi
if [ -e "$gates/kill-{program}" ] && [ "$*" != --version ] && /bin/mv "$gates/kill-{program}" "$gates/hit"; then
  '{real}' "$@" <&0 &
  kill -KILL $!
  wait $!
  exit 137
fi
cut start
'{real}' "$@"
status=$?
cut exit
exit $status
"#,
            gates = self.directory.display(),
            real = real.display(),
        )
    }

    /// Returns the `mv` that the document moves the downloaded agent with: it wraps the agent in a gate.
    fn mover(&self) -> String {
        format!(
            r#"#!/bin/sh
# Generated. Moves files like mv, and wraps the agent in a gate.
for argument; do
  source=$target
  target=$argument
done
case "$target" in
*/rekindle-node) ;;
*) exec /bin/mv "$@" ;;
esac
# Two commands may do this at once: each file is either complete or missing.
/bin/mv -f "$source" "$target.real" || exit
cat > "$target.$$" <<'END'
#!/bin/bash
gates='{gates}'
if [ -e "$gates/skew" ]; then
  export LD_PRELOAD={FAKETIME} FAKETIME="$(cat "$gates/skew")" DONT_FAKE_MONOTONIC=1
  : > "$gates/hit"
fi
[ -e "$gates/line" ] || exec "$0.real" "$@"
exec 3>&2
exec "$0.real" "$@" 2> >(exec cut-at-line "$$" >&3)
END
chmod 0755 "$target.$$"
/bin/mv -f "$target.$$" "$target"
"#,
            gates = self.directory.display()
        )
    }

    /// Returns the script that reads the agent's log from a pipe, and kills the agent after a line.
    fn cutter(&self) -> String {
        format!(
            r#"#!/bin/bash
# Generated. Forwards the agent's log, and kills the agent after the line that the run requests.
gates='{gates}'
while IFS= read -r line; do
  printf '%s\n' "$line"
  [ -e "$gates/line" ] || continue
  if [[ "$line" == *"$(cat "$gates/line")"* ]]; then
    /bin/mv "$gates/line" "$gates/hit" 2>/dev/null && kill -KILL "$1"
  fi
done
"#,
            gates = self.directory.display()
        )
    }
}
