//! A small disk for one server, which a test fills and frees.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A small file system in memory, for the data of one server. It outlives the server, and ends with
/// this value.
pub(crate) struct Disk {
    place: TempDir,
    /// The process in whose mount namespace the disk is.
    keeper: Child,
}

impl Disk {
    /// Mounts a disk of this size.
    ///
    /// # Errors
    /// The reason, if that is not permitted on this machine.
    pub(crate) fn try_start(mebibytes: u32) -> Result<Self, String> {
        let place = TempDir::new().map_err(|e| format!("disk: cannot make a folder for it: {e}"))?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testbed/disk");
        let mut command = Command::new(script);
        command.arg(place.path()).arg(mebibytes.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().map_err(|e| format!("disk: cannot run its script: {e}"))?;
        let mut line = String::new();
        let said = keeper.stdout.take().map(|output| BufReader::new(output).read_line(&mut line));
        let disk = Self { place, keeper };
        if line != "ready\n" {
            return Err(format!("disk: it cannot be mounted, the script says why on standard error ({said:?})"));
        }
        Ok(disk)
    }

    /// Returns the environment of the script that starts a server on this disk.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        ("TESTBED_DISK", format!("{} {}", self.keeper.id(), self.place.path().display()))
    }

    /// Takes the space that is left, except for so many MiB.
    ///
    /// # Errors
    /// Those of writing a file, except the end of the space.
    pub(crate) fn fill(&self, spared: u64) -> io::Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.filler())?;
        while self.available()? > spared {
            match filler.write_all(&[0; 1 << 20]) {
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                written => written?,
            }
        }
        Ok(())
    }

    /// Returns the space that is left, in MiB.
    fn available(&self) -> io::Result<u64> {
        let asked = Command::new("df").args(["--output=avail", "--block-size=1"]).arg(self.filler()).output()?;
        let bytes = String::from_utf8_lossy(&asked.stdout).lines().last().and_then(|line| line.trim().parse().ok());
        // Not rounded down: a rest is space, too.
        bytes.map(|bytes: u64| bytes.div_ceil(1 << 20)).ok_or_else(|| io::Error::other("df does not tell"))
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// Those of removing a file.
    pub(crate) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }

    /// Returns the path of the file that takes the space, as seen from outside of the namespace.
    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.place.path().strip_prefix("/").unwrap_or(self.place.path())).join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It ends with its standard input. The file system ends with the last process that sees it.
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}
