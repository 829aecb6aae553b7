//! The data sets the program knows by name: where their files are, and reading them.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cifar::{self, Record};
use super::published::{self, Published};
use super::{Augmentation, Dataset, ImageShape, Limits, Normalisation, TrainTest, embedded, folder, idx, image_file};
use crate::{Error, Result};

/// A data set known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// UCI's handwritten digits, embedded.
    Digits,
    /// Fashion-MNIST, 60,000 + 10,000 in IDX files; the first 3,000 + 2,000 are embedded.
    #[serde(rename = "fashion-mnist")]
    FashionMnist,
    /// MNIST, 60,000 + 10,000 in IDX files.
    Mnist,
    /// CIFAR-10, 50,000 + 10,000 in binary files.
    Cifar10,
    /// CIFAR-100 with its fine labels, 50,000 + 10,000 in binary files.
    Cifar100,
    /// ImageNet-2012, or any folder of the same form: `train/CLASS/*.jpeg` and `val/CLASS/*.jpeg`.
    ImageNet,
}

pub(super) const DIGIT_NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
pub(super) const FASHION_NAMES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
/// Mean and standard deviation of Fashion-MNIST's training pixels.
pub(super) const FASHION_NORMALISATION: (f32, f32) = (0.286, 0.353);

/// Side of the square images that come from an image folder.
const FOLDER_SIDE: usize = 224;

pub(super) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

impl Source {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Source::Digits => "digits",
            Source::FashionMnist => "fashion-mnist",
            Source::Mnist => "mnist",
            Source::Cifar10 => "cifar10",
            Source::Cifar100 => "cifar100",
            Source::ImageNet => "imagenet",
        }
    }

    /// The name in prose.
    pub fn title(self) -> &'static str {
        match self {
            Source::Digits => "handwritten digits",
            Source::FashionMnist => published::FASHION_MNIST.title,
            Source::Mnist => published::MNIST.title,
            Source::Cifar10 => published::CIFAR10.title,
            Source::Cifar100 => published::CIFAR100.title,
            Source::ImageNet => published::IMAGENET.title,
        }
    }

    /// Reads the whole set from `dir`: the folder with its files, or a parent of the folder that usually holds them
    /// (`cifar10`, `fashion-mnist` ...). The digits need none, nor does Fashion-MNIST as far as `limits` stay within what is
    /// embedded of it.
    ///
    /// A missing or broken file is an [`Error::File`] naming it, what was expected and where to get it; a needed folder that
    /// is not given, or one given to the digits, an [`Error::Usage`].
    pub fn load(self, dir: Option<&Path>, limits: Limits) -> Result<TrainTest> {
        let published = match (self, dir) {
            (Source::Digits, None) => return embedded::digits(),
            (Source::FashionMnist, None) if limits.within(embedded::FASHION_LEN) => return embedded::fashion(),
            (Source::Digits, Some(_)) => {
                return Err(Error::Usage("the digits are embedded in the program, expected no --data".into()));
            }
            (Source::FashionMnist, _) => &published::FASHION_MNIST,
            (Source::Mnist, _) => &published::MNIST,
            (Source::Cifar10, _) => &published::CIFAR10,
            (Source::Cifar100, _) => &published::CIFAR100,
            (Source::ImageNet, _) => &published::IMAGENET,
        };
        let Some(dir) = dir else {
            let (title, advice) = (published.title, published.advice());
            let part = if self == Source::FashionMnist { "beyond its first 3,000 + 2,000 images " } else { "" };
            return Err(Error::Usage(format!(
                "{title} {part}is not embedded in the program, expected --data DIR; {advice}"
            )));
        };
        if self == Source::ImageNet {
            let normalisation = Normalisation::new(255, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]);
            let dir = locate(dir, published, |dir| dir.join("train").is_dir())?;
            return folder::read("imagenet", &dir, FOLDER_SIDE, normalisation);
        }
        let files = find(dir, published)?;
        let contents = files.par_iter().map(|path| read(path)).collect::<Vec<_>>();
        let contents = contents.into_iter().collect::<Result<Vec<_>>>()?;
        let mut set = self.parse(&files, &contents).map_err(|error| published.advise(error))?;
        let check = |(path, contents): (&PathBuf, &Vec<u8>)| published.warning(path, contents);
        set.warnings = files.par_iter().zip(&contents).filter_map(check).collect();
        Ok(set)
    }

    /// What its recipe does to training images: nothing to gray ones.
    pub fn augmentation(self) -> Augmentation {
        match self {
            Source::Digits | Source::FashionMnist | Source::Mnist => Augmentation::None,
            Source::Cifar10 => Augmentation::PadCropFlip,
            Source::Cifar100 | Source::ImageNet => Augmentation::ResizedCropFlip,
        }
    }

    /// Its image shape, classes and published numbers of training and test images: what can be said without the files.
    pub fn published(self) -> (ImageShape, usize, [usize; 2]) {
        let shape = |channels, side| ImageShape { channels, height: side, width: side };
        match self {
            Source::Digits => (shape(1, 8), 10, [3823, 1797]),
            Source::FashionMnist | Source::Mnist => (shape(1, 28), 10, [60_000, 10_000]),
            Source::Cifar10 => (shape(3, 32), 10, [50_000, 10_000]),
            Source::Cifar100 => (shape(3, 32), 100, [50_000, 10_000]),
            Source::ImageNet => (shape(3, FOLDER_SIDE), 1000, [1_281_167, 50_000]),
        }
    }

    /// Decodes one image file (PNG or JPEG) as an image of this set, u8 (C, H, W), for prediction.
    ///
    /// It is converted to the set's channels, stretched to its size (ImageNet: rescaled and cut as in evaluation), and white
    /// becomes the largest pixel value of `normalisation`. What cannot be decoded is an [`Error::File`].
    pub fn read_image(self, path: &Path, shape: ImageShape, normalisation: &Normalisation) -> Result<Vec<u8>> {
        match self {
            Source::ImageNet => image_file::read_centre(path, shape),
            _ => image_file::read_stretched(path, shape, normalisation),
        }
    }

    /// Turns the contents of the published files, in their order, into images.
    fn parse(self, files: &[PathBuf], contents: &[Vec<u8>]) -> Result<TrainTest> {
        let idx = |name, classes: &[&str], (mean, std): (f32, f32)| {
            let part = |at: usize| mnist_like(name, classes, mean, std, &files[at..], &contents[at..]);
            Ok(TrainTest { train: part(0)?, test: part(2)?, warnings: vec![] })
        };
        let cifar = |name, classes: Vec<String>, normalisation: Normalisation, record, records: usize| {
            let (train, test) = (0..files.len() - 1, files.len() - 1..files.len());
            let part = |range: std::ops::Range<usize>, records| {
                let (mut labels, mut pixels) = (vec![], vec![]);
                for at in range {
                    cifar::append(&files[at], &contents[at], record, records, &mut labels, &mut pixels)?;
                }
                Dataset::in_memory(name, cifar::SHAPE, classes.clone(), normalisation.clone(), labels, pixels)
            };
            Ok(TrainTest { train: part(train, records)?, test: part(test, 10_000)?, warnings: vec![] })
        };
        match self {
            Source::FashionMnist => idx("fashion-mnist", &FASHION_NAMES, FASHION_NORMALISATION),
            Source::Mnist => idx("mnist", &DIGIT_NAMES, (0.1307, 0.3081)),
            Source::Cifar10 => {
                let normalisation = Normalisation::new(255, &[0.4914, 0.4822, 0.4465], &[0.2023, 0.1994, 0.2010]);
                cifar("cifar10", names(&cifar::CLASSES_10), normalisation, Record::Cifar10, 10_000)
            }
            Source::Cifar100 => {
                let normalisation = Normalisation::new(255, &[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]);
                let classes = cifar::CLASSES_100.lines().map(str::to_string).collect();
                cifar("cifar100", classes, normalisation, Record::Cifar100, 50_000)
            }
            Source::Digits | Source::ImageNet => unreachable!("load reads these itself"),
        }
    }
}

/// One part of an MNIST-like set: the first of `files` holds 28x28 images, the second their labels.
fn mnist_like(
    name: &str,
    classes: &[&str],
    mean: f32,
    std: f32,
    files: &[PathBuf],
    contents: &[Vec<u8>],
) -> Result<Dataset> {
    let images = idx::images(&files[0], &contents[0])?;
    let (height, width) = (images.height, images.width);
    if (height, width) != (28, 28) {
        return Err(Error::file(&files[0], format!("images of {height}x{width}, expected 28x28")));
    }
    let labels = idx::labels(&files[1], &contents[1], images.count, classes.len())?;
    let shape = ImageShape { channels: 1, height, width };
    Dataset::in_memory(name, shape, names(classes), Normalisation::new(255, &[mean], &[std]), labels, images.pixels)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::file_because(path, "cannot be read", error))
}

/// The published files in or below `dir`, in the published order; one that is published as `.gz` may lie there plain.
fn find(dir: &Path, published: &Published) -> Result<Vec<PathBuf>> {
    let file = |dir: &Path, name: &str| {
        let plain = name.strip_suffix(".gz").unwrap_or(name);
        [name, plain].map(|name| dir.join(name)).into_iter().find(|path| path.is_file())
    };
    let dir = locate(dir, published, |dir| published.files.iter().any(|(name, _)| file(dir, name).is_some()))?;
    let require = |&(name, _): &(&str, _)| {
        file(&dir, name).ok_or_else(|| Error::file(dir.join(name), format!("no such file; {}", published.advice())))
    };
    published.files.iter().map(require).collect()
}

/// The first of `dir` and the usual folders below it for which `holds` is true.
fn locate(dir: &Path, published: &Published, holds: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let below = published.folders.iter().map(|folder| dir.join(folder));
    std::iter::once(dir.to_path_buf()).chain(below).find(|dir| holds(dir)).ok_or_else(|| {
        let problem = if dir.is_dir() { "nothing of this set there" } else { "no such folder" };
        let file = published.files.first().map_or("train/", |(name, _)| name);
        let (title, folders, advice) = (published.title, published.folders.join(", "), published.advice());
        Error::file(dir, format!("{problem}, expected {title} ({file} ... in it or in its {folders}); {advice}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::{TempDir, tempdir};

    const IDX: [&str; 4] =
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

    // Three training and two test images; pixel p of training image i is i + p % 7.
    fn write_mnist(dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for (part, n) in [(0, 3u8), (2, 2)] {
            let pixels = (0..n).flat_map(|i| (0..784u32).map(move |p| i + (p % 7) as u8));
            let images = [0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28].into_iter().chain(pixels);
            fs::write(dir.join(IDX[part]), images.collect::<Vec<u8>>()).unwrap();
            let labels = [0, 0, 8, 1, 0, 0, 0, n].into_iter().chain((0..n).map(|i| 9 - i));
            fs::write(dir.join(IDX[part + 1]), labels.collect::<Vec<u8>>()).unwrap();
        }
    }

    fn mnist() -> TempDir {
        let dir = tempdir().unwrap();
        write_mnist(dir.path());
        dir
    }

    fn gzip(path: &Path) {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&fs::read(path).unwrap()).unwrap();
        fs::write(
            path.with_file_name(format!("{}.gz", path.file_name().unwrap().to_str().unwrap())),
            encoder.finish().unwrap(),
        )
        .unwrap();
        fs::remove_file(path).unwrap();
    }

    fn message(source: Source, dir: &Path) -> String {
        let message = source.load(Some(dir), Limits::default()).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn idx_files_are_found_in_the_folder_or_in_the_one_named_after_the_set() {
        let parent = tempdir().unwrap();
        write_mnist(&parent.path().join("mnist"));
        for dir in [parent.path().to_path_buf(), parent.path().join("mnist")] {
            let set = Source::Mnist.load(Some(&dir), Limits::default()).unwrap();
            assert_eq!((set.train.labels(), set.test.labels()), (&[9, 8, 7][..], &[9, 8][..]));
            assert_eq!(set.train.image(2).unwrap()[..9], [2, 3, 4, 5, 6, 7, 8, 2, 3]);
            assert!(set.warnings.is_empty());
        }
    }

    #[test]
    fn a_file_with_another_checksum_is_read_and_warned_about() {
        let dir = mnist();
        gzip(&dir.path().join(IDX[3]));
        let set = Source::FashionMnist.load(Some(dir.path()), Limits::default()).unwrap();
        assert_eq!(set.test.labels(), [9, 8]);
        let [warning] = &set.warnings[..] else { panic!("{:?}", set.warnings) };
        assert!(
            warning.contains("t10k-labels-idx1-ubyte.gz: MD5 ") && warning.contains("published bb300cfd"),
            "{warning}"
        );
    }

    #[test]
    fn a_missing_file_is_named_with_where_to_get_it() {
        let dir = mnist();
        fs::remove_file(dir.path().join(IDX[1])).unwrap();
        let error = message(Source::FashionMnist, dir.path());
        for part in [
            "train-labels-idx1-ubyte.gz: no such file; get Fashion-MNIST from https://github.com/zalandoresearch",
            "t10k-images-idx3-ubyte.gz (MD5 bef4ecab320f06d8554ea6380940ec79)",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_folder_without_the_set_says_what_was_looked_for() {
        let dir = tempdir().unwrap();
        let error = message(Source::Cifar10, dir.path());
        assert!(
            error.contains(
                ": nothing of this set there, expected CIFAR-10 (data_batch_1.bin ... in it or in its cifar10, "
            ),
            "{error}"
        );
        assert!(error.contains("test_batch.bin (MD5 803d5f7f4d78ea53de84dbe85f74fb6d)"), "{error}");
        let error = message(Source::ImageNet, &dir.path().join("nowhere"));
        assert!(
            error.contains("nowhere: no such folder, expected ImageNet-2012 (train/ ... in it or in its imagenet); "),
            "{error}"
        );
    }

    #[test]
    fn a_corrupt_file_is_named_with_its_own_checksum() {
        let dir = mnist();
        let path = dir.path().join(IDX[0]);
        gzip(&path);
        let path = path.with_file_name("train-images-idx3-ubyte.gz");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = message(Source::Mnist, dir.path());
        assert!(error.contains("train-images-idx3-ubyte.gz: corrupt or truncated gzip after "), "{error}");
        assert!(
            error.ends_with(
                "get the MNIST file (MD5 f68b3c2dcbeaaa9fbdd348bbdeb94873) again from http://yann.lecun.com/exdb/mnist/"
            ),
            "{error}"
        );
    }

    #[test]
    fn images_of_another_size_and_labels_of_another_count_are_refused() {
        let dir = mnist();
        let image = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5];
        fs::write(dir.path().join(IDX[2]), image).unwrap();
        let error = message(Source::Mnist, dir.path());
        assert!(error.contains("t10k-images-idx3-ubyte: images of 1x1, expected 28x28"), "{error}");
        let dir = mnist();
        fs::copy(dir.path().join(IDX[3]), dir.path().join(IDX[1])).unwrap();
        let error = message(Source::Mnist, dir.path());
        assert!(error.contains("train-labels-idx1-ubyte: 2 labels, expected 3, one for each image"), "{error}");
    }

    // A file of zeros is black aeroplanes; it takes no disk.
    #[test]
    fn cifar_files_of_the_published_size_are_read_and_a_half_one_is_not() {
        let dir = tempdir().unwrap();
        let inner = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        for (name, _) in published::CIFAR10.files {
            fs::File::create(inner.join(name)).unwrap().set_len(30_730_000).unwrap();
        }
        let mut last = fs::OpenOptions::new().write(true).open(inner.join("data_batch_5.bin")).unwrap();
        last.write_all(&[7, 1]).unwrap();
        let set = Source::Cifar10.load(Some(dir.path()), Limits::default()).unwrap();
        assert_eq!((set.train.len(), set.test.len(), set.warnings.len()), (50_000, 10_000, 6));
        assert_eq!((set.train.labels()[40_000], set.train.image(40_000).unwrap()[..2].to_vec()), (7, vec![1, 0]));
        assert_eq!(set.train.class_names()[7], "horse");

        last.set_len(30_730_000 / 2).unwrap();
        let error = message(Source::Cifar10, dir.path());
        let expected = "data_batch_5.bin: 15365000 bytes, expected 30730000 (10000 records of 3073); get the CIFAR-10 file \
                        (MD5 53f37980c15c3d472c316c40844f3f0d) again from";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn the_embedded_sets_need_no_folder_and_the_others_do() {
        let limits = |train, test| Limits { train_limit: Some(train), test_limit: Some(test), validation: 0 };
        assert_eq!(Source::FashionMnist.load(None, limits(100, 2000)).unwrap().train.len(), 3000);
        let error = Source::FashionMnist.load(None, limits(6000, 2000)).unwrap_err().to_string();
        assert!(error.contains("beyond its first 3,000 + 2,000 images"), "{error}");
        assert_eq!(Source::Digits.load(None, Limits::default()).unwrap().test.len(), 1797);
        let error = Source::Cifar100.load(None, Limits::default()).unwrap_err();
        assert!(matches!(&error, Error::Usage(m) if m.starts_with("CIFAR-100 is not embedded")), "{error}");
        assert!(matches!(Source::Digits.load(Some(Path::new(".")), Limits::default()), Err(Error::Usage(_))));
    }

    #[test]
    fn with_a_folder_the_real_files_are_read() {
        let limits = Limits { train_limit: Some(2), test_limit: Some(1), validation: 0 };
        assert_eq!(Source::FashionMnist.load(Some(mnist().path()), limits).unwrap().train.len(), 3);
    }

    #[test]
    fn names_in_files_are_those_of_the_folders() {
        for (source, name) in
            [(Source::FashionMnist, "fashion-mnist"), (Source::Cifar100, "cifar100"), (Source::ImageNet, "imagenet")]
        {
            assert_eq!(serde_json::to_value(source).unwrap(), name);
        }
    }
}
