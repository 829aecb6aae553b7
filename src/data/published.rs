//! Where the known data sets are published, which files they are made of, and their checksums.

use std::path::Path;

use md5::{Digest, Md5};

use crate::Error;

/// A data set someone else publishes.
pub(super) struct Published {
    /// Its name in prose.
    pub(super) title: &'static str,
    /// The page that offers it.
    pub(super) page: &'static str,
    /// What is downloaded and unpacked, with its MD5, where that is not the files themselves.
    pub(super) archives: &'static [(&'static str, &'static str)],
    /// The files to read, with their MD5.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// The folders it usually lies in, below the one given.
    pub(super) folders: &'static [&'static str],
}

pub(super) const FASHION_MNIST: Published = Published {
    title: "Fashion-MNIST",
    page: "https://github.com/zalandoresearch/fashion-mnist",
    archives: &[],
    files: &[
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ],
    folders: &["fashion-mnist", "FashionMNIST/raw"],
};

pub(super) const MNIST: Published = Published {
    title: "MNIST",
    page: "http://yann.lecun.com/exdb/mnist/",
    archives: &[],
    files: &[
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ],
    folders: &["mnist", "MNIST/raw"],
};

pub(super) const CIFAR10: Published = Published {
    title: "CIFAR-10",
    page: "https://www.cs.toronto.edu/~kriz/cifar.html",
    archives: &[("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
    files: &[
        ("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25"),
        ("data_batch_2.bin", "5ea93a67294ea407fff1d09f752e9692"),
        ("data_batch_3.bin", "942cd6a4bcdd0dd3c604fbe906cb4421"),
        ("data_batch_4.bin", "ae636b3ba5c66a11e91e8cb52e771fcb"),
        ("data_batch_5.bin", "53f37980c15c3d472c316c40844f3f0d"),
        ("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d"),
    ],
    folders: &["cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"],
};

pub(super) const CIFAR100: Published = Published {
    title: "CIFAR-100",
    page: "https://www.cs.toronto.edu/~kriz/cifar.html",
    archives: &[("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")],
    files: &[("train.bin", "6172c7755cfe09b2fe270c85cebc1b15"), ("test.bin", "4499cfba6c016c1be1438163640a0898")],
    folders: &["cifar100", "cifar-100-binary", "cifar100/cifar-100-binary"],
};

pub(super) const IMAGENET: Published = Published {
    title: "ImageNet-2012",
    page: "https://image-net.org/download.php",
    archives: &[
        ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
        ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
    ],
    files: &[],
    folders: &["imagenet"],
};

impl Published {
    /// Where to get the whole set: page, archives, files and checksums, on one line.
    pub(super) fn advice(&self) -> String {
        let list = |files: &[(&str, &str)]| {
            files.iter().map(|(name, md5)| format!("{name} (MD5 {md5})")).collect::<Vec<_>>().join(", ")
        };
        let what = match (self.archives, self.files) {
            ([], files) => list(files),
            (archives, []) => list(archives),
            (archives, files) => format!("{}, which holds {}", list(archives), list(files)),
        };
        format!("get {} from {}: {what}", self.title, self.page)
    }

    /// The published checksum of the file `path`, if its name is a published one.
    fn md5(&self, path: &Path) -> Option<&'static str> {
        let name = path.file_name()?;
        self.files.iter().find(|(file, _)| name == *file).map(|&(_, md5)| md5)
    }

    /// Adds to an error about the file `path` where to get it anew.
    pub(super) fn advise(&self, error: Error) -> Error {
        match error {
            Error::File { path, detail, source } => {
                let md5 = self.md5(&path).map(|md5| format!(" (MD5 {md5})")).unwrap_or_default();
                let detail = format!("{detail}; get the {} file{md5} again from {}", self.title, self.page);
                Error::File { path, detail, source }
            }
            other => other,
        }
    }

    /// One line if the contents of `path` are not those published.
    pub(super) fn warning(&self, path: &Path, contents: &[u8]) -> Option<String> {
        let published = self.md5(path)?;
        let found: String = Md5::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!(
            "{}: MD5 {found}, published {published}; used all the same, since it is well-formed",
            path.display()
        );
        (found != published).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_page_archive_files_and_checksums_on_one_line() {
        let advice = CIFAR100.advice();
        for part in [CIFAR100.page, "cifar-100-binary.tar.gz (MD5 03b5", "test.bin (MD5 4499"] {
            assert!(advice.contains(part), "{advice}");
        }
        assert!(!advice.contains('\n'));
        assert!(IMAGENET.advice().ends_with("ILSVRC2012_img_val.tar (MD5 29b22e2961454d5413ddabcf34fc5622)"));
    }

    // RFC 1321: MD5 ("abc") = 900150983cd24fb0d6963f7d28e17f72.
    #[test]
    fn only_a_published_file_with_another_checksum_is_warned_about() {
        let warning = CIFAR10.warning(Path::new("a/test_batch.bin"), b"abc").unwrap();
        assert!(
            warning.starts_with("a/test_batch.bin: MD5 900150983cd24fb0d6963f7d28e17f72, published 803d"),
            "{warning}"
        );
        assert_eq!(CIFAR10.warning(Path::new("a/other.bin"), b"abc"), None);
        let abc = Published { files: &[("abc", "900150983cd24fb0d6963f7d28e17f72")], ..CIFAR10 };
        assert_eq!(abc.warning(Path::new("a/abc"), b"abc"), None);
    }
}
