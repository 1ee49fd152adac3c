//! BLAKE3 sums of the images, made after the dump and compared before a restore.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::parallel::hashed_in_parallel;
use super::record::RECORD_NAME;
use crate::error::{Error, ImageProblem, Result, WrongImage};

/// Each worker's buffer. Larger ones were not faster.
const BUFFER_BYTES: usize = 128 << 10;

/// The sums of the files of a checkpoint, by name relative to its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sums(BTreeMap<String, Sum>);

/// The size and hash of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its BLAKE3 hash, in hexadecimal.
    pub blake3: String,
}

impl Sums {
    /// Reads every file of a checkpoint but crr.json, logs and statistics.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be read.
    pub fn of(directory: impl AsFd, path: &Path) -> Result<Self> {
        let directory = Directory::new(directory.as_fd(), path);
        let mut files = Vec::new();
        for name in directory.files()?.into_iter().filter(|name| is_summed(name)) {
            // A name that is no UTF-8 is none of CRIU's or crr's.
            if let Ok(name) = name.into_string() {
                let size = directory.stat(OsStr::new(&name))?.map_or(0, |stat| stat.st_size.unsigned_abs());
                files.push((name, size));
            }
        }
        let sum = |name: &String| sum(&directory, name).map_err(Error::io("read", directory.path_of(name)));
        let sums = hashed_in_parallel(files, sum).into_iter().map(|(name, sum)| Ok((name, sum?)));
        Ok(Self(sums.collect::<Result<_>>()?))
    }

    /// Reads every file again and names all that are not as they were. Files without a sum are not looked at.
    ///
    /// # Errors
    /// [`Error::Sums`] if any differs.
    pub fn verify(&self, directory: impl AsFd, path: &Path) -> Result<()> {
        let directory = Directory::new(directory.as_fd(), path);
        let files = self.0.iter().map(|(name, sum)| (name.clone(), sum.size_bytes)).collect();
        let check = |name: &String| self.0.get(name).and_then(|expected| difference(&directory, name, expected));
        let mut wrong: Vec<WrongImage> = hashed_in_parallel(files, check)
            .into_iter()
            .filter_map(|(name, problem)| problem.map(|problem| WrongImage { name, problem }))
            .collect();
        wrong.sort_by(|a, b| a.name.cmp(&b.name));
        if wrong.is_empty() { Ok(()) } else { Err(Error::Sums { dir: path.into(), wrong }) }
    }

    /// The sum of one file.
    pub fn get(&self, name: &str) -> Option<&Sum> {
        self.0.get(name)
    }

    /// How many files have a sum.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no file has a sum.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What changes after the dump, or is not needed by a restore, has no sum.
fn is_summed(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    !(name.starts_with(RECORD_NAME.as_bytes()) || name.starts_with(b"stats-") || name.ends_with(b".log"))
}

fn sum(directory: &Directory<impl AsFd>, name: &str) -> io::Result<Sum> {
    hash(directory.file(OsStr::new(name))?)
}

/// The hash of a file from where it stands to its end.
pub(super) fn hash(mut file: File) -> io::Result<Sum> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => drop(hasher.update(&buffer[..count])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Sum { size_bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}

fn difference(directory: &Directory<impl AsFd>, name: &str, expected: &Sum) -> Option<ImageProblem> {
    if !Path::new(name).components().all(|component| matches!(component, Component::Normal(_))) {
        return Some(ImageProblem::Kind);
    }
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ImageProblem::Missing,
        io::ErrorKind::InvalidInput => ImageProblem::Kind,
        _ => ImageProblem::Unreadable(error.to_string()),
    };
    let found = directory.file(OsStr::new(name)).and_then(|file| {
        let size_bytes = file.metadata()?.len();
        // The size alone tells; the content need not be read.
        if size_bytes == expected.size_bytes { hash(file) } else { Ok(Sum { size_bytes, blake3: String::new() }) }
    });
    match found {
        Err(error) => Some(unreadable(error)),
        Ok(found) if found.size_bytes != expected.size_bytes => {
            Some(ImageProblem::Size { expected_bytes: expected.size_bytes, found_bytes: found.size_bytes })
        }
        Ok(found) => (!found.blake3.eq_ignore_ascii_case(&expected.blake3)).then_some(ImageProblem::Content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn sums(dir: &Path) -> Sums {
        Sums::of(File::open(dir).unwrap(), dir).unwrap()
    }

    fn wrong(sums: &Sums, dir: &Path) -> Vec<WrongImage> {
        match sums.verify(File::open(dir).unwrap(), dir) {
            Err(Error::Sums { wrong, .. }) => wrong,
            Ok(()) => Vec::new(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_sum_is_the_blake3_of_the_file_as_another_program_would_make_it() {
        let dir = tempfile::tempdir().unwrap();
        // Larger than a buffer, and no multiple of it.
        let content: Vec<u8> = (0..300_001u32).map(|n| (n % 251) as u8).collect();
        fs::write(dir.path().join("pages-1.img"), &content).unwrap();
        let sums = sums(dir.path());
        let sum = sums.get("pages-1.img").unwrap();
        assert_eq!((sum.size_bytes, &*sum.blake3), (300_001, &*blake3::hash(&content).to_hex()));
    }

    #[test]
    fn what_changes_after_the_dump_has_no_sum() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.img", "dump.log", "stats-dump", "stats-restore", "crr.json", "crr.json.new"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("files")).unwrap();
        fs::write(dir.path().join("files/0"), "x").unwrap();
        assert_eq!(sums(dir.path()).0.keys().collect::<Vec<_>>(), ["a.img", "files/0"]);
    }

    #[test]
    fn every_wrong_file_is_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["missing", "shorter", "flipped", "directory", "good"] {
            fs::write(dir.path().join(name), vec![7; 2 << 20]).unwrap();
        }
        let sums = sums(dir.path());
        assert!(wrong(&sums, dir.path()).is_empty());
        fs::remove_file(dir.path().join("missing")).unwrap();
        File::options().write(true).open(dir.path().join("shorter")).unwrap().set_len(5).unwrap();
        let mut flipped = vec![7; 2 << 20];
        flipped[1 << 20] ^= 1;
        fs::write(dir.path().join("flipped"), flipped).unwrap();
        fs::remove_file(dir.path().join("directory")).unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        let wrong = wrong(&sums, dir.path());
        let shown: Vec<_> = wrong.iter().map(|image| (&*image.name, &image.problem)).collect();
        let size = ImageProblem::Size { expected_bytes: 2 << 20, found_bytes: 5 };
        assert_eq!(
            shown,
            [
                ("directory", &ImageProblem::Kind),
                ("flipped", &ImageProblem::Content),
                ("missing", &ImageProblem::Missing),
                ("shorter", &size),
            ]
        );
    }

    #[test]
    fn a_name_that_leads_out_of_the_directory_is_not_read() {
        let sum = Sum { size_bytes: 0, blake3: blake3::hash(b"").to_hex().to_string() };
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("outside"), "").unwrap();
        let sums = Sums(BTreeMap::from([("../outside".to_string(), sum)]));
        assert_eq!(wrong(&sums, &dir.path().join("inner"))[0].problem, ImageProblem::Kind);
    }
}
