//! Image folders: `train/CLASS/*` and `val/CLASS/*` (or `test/`), PNG or JPEG, as ImageNet is usually unpacked.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Dataset, ImageShape, Normalisation, TrainTest};
use crate::{Error, Result};

/// Lists the images below `dir` as colour images of `side` x `side`. Only names are read: files are decoded when asked for.
///
/// Classes are the folders of `train/`, numbered in the order of their names; images are ordered by class, then by name.
/// Other files and hidden folders are passed over. A class without images, or a `val/` with an unknown class, is an error.
pub(super) fn read(name: &str, dir: &Path, side: usize, normalisation: Normalisation) -> Result<TrainTest> {
    let train = dir.join("train");
    let test = ["val", "test"].map(|part| dir.join(part)).into_iter().find(|part| part.is_dir());
    let test = test.ok_or_else(|| Error::file(dir, "has neither val/ nor test/, expected one beside train/"))?;
    let classes = class_folders(&train)?;
    let shape = ImageShape { channels: 3, height: side, width: side };
    let dataset = |part: &Path| {
        let (mut labels, mut paths) = (vec![], vec![]);
        for class in class_folders(part)? {
            let label = classes.binary_search(&class).map_err(|_| {
                Error::file(
                    part.join(&class),
                    format!("no such class in {}, expected its classes only", train.display()),
                )
            })?;
            let images = images(&part.join(&class))?;
            labels.extend(vec![label as u32; images.len()]);
            paths.extend(images);
        }
        Dataset::of_files(name, shape, classes.clone(), normalisation.clone(), labels, paths)
    };
    Ok(TrainTest { train: dataset(&train)?, test: dataset(&test)?, warnings: vec![] })
}

/// The names of the folders in `dir`, sorted.
fn class_folders(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = entries(dir)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !name.starts_with('.'))
        .collect();
    if names.is_empty() {
        return Err(Error::file(dir, "holds no folders, expected one for each class"));
    }
    names.sort();
    Ok(names)
}

/// The image files in `dir`, sorted by name.
fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_image = |path: &PathBuf| {
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        ending.is_some_and(|ending| ["png", "jpg", "jpeg"].iter().any(|known| ending == *known))
    };
    let mut paths: Vec<PathBuf> = entries(dir)?.into_iter().filter(is_image).collect();
    if paths.is_empty() {
        return Err(Error::file(dir, "holds no images, expected .png, .jpg or .jpeg files"));
    }
    paths.sort();
    Ok(paths)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    list().map_err(|error| Error::file_because(dir, "cannot be listed, expected a folder", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use tempfile::{TempDir, tempdir};

    fn write(dir: &TempDir, path: &str, red: u8) {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(40, 30, Rgb([red, 0, 0])).save(path).unwrap();
    }

    fn folder() -> TempDir {
        let dir = tempdir().unwrap();
        for (path, red) in [
            ("train/wolf/b.png", 3),
            ("train/wolf/a.jpg", 2),
            ("train/ape/z.PNG", 1),
            ("val/wolf/c.jpeg", 4),
            ("train/.hidden/a.png", 9),
        ] {
            write(&dir, path, red);
        }
        fs::write(dir.path().join("train/wolf/notes.txt"), "x").unwrap();
        dir
    }

    fn read_folder(dir: &Path) -> Result<TrainTest> {
        read("imagenet", dir, 7, Normalisation::new(255, &[0.0; 3], &[1.0; 3]))
    }

    #[test]
    fn classes_are_numbered_by_name_and_images_decoded_on_demand() {
        let dir = folder();
        let set = read_folder(dir.path()).unwrap();
        assert_eq!(set.train.class_names(), ["ape", "wolf"]);
        assert_eq!((set.train.labels(), set.test.labels()), (&[0, 1, 1][..], &[1][..]));
        assert_eq!(set.train.bytes(), 0);
        let image = set.train.image(0).unwrap();
        assert_eq!(image.as_ref(), [&[1; 49][..], &[0; 98]].concat());
        assert_eq!(set.train.image(2).unwrap()[0], 3);
        // JPEG is lossy: only near.
        assert!(set.test.image(0).unwrap()[..49].iter().all(|&red| red.abs_diff(4) <= 4));
        assert_eq!(set.train.original(0).unwrap().0, ImageShape { channels: 3, height: 30, width: 40 });
    }

    #[test]
    fn a_file_that_is_no_image_is_an_error_when_it_is_asked_for() {
        let dir = folder();
        fs::write(dir.path().join("train/ape/z.PNG"), "nothing").unwrap();
        let set = read_folder(dir.path()).unwrap();
        assert!(set.train.image(0).unwrap_err().to_string().contains("z.PNG: cannot be decoded"));
    }

    #[test]
    fn folders_that_do_not_fit_are_one_error_naming_the_folder() {
        let dir = folder();
        write(&dir, "val/yak/a.png", 1);
        let error = read_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("yak: no such class in ") && error.contains("expected its classes only"), "{error}");

        let dir = folder();
        fs::create_dir(dir.path().join("train/zebra")).unwrap();
        let error = read_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("zebra: holds no images, expected .png, .jpg or .jpeg files"), "{error}");

        let dir = folder();
        fs::remove_dir_all(dir.path().join("val")).unwrap();
        let error = read_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has neither val/ nor test/"), "{error}");
        fs::create_dir(dir.path().join("val")).unwrap();
        let error = read_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("val: holds no folders, expected one for each class"), "{error}");
    }
}
