//! NVRTC, NVIDIA's CUDA compiler as a library.
//!
//! build.rs compiles the kernels with it, and the driver does where no embedded image fits the device. build.rs includes
//! this folder by path, so it uses nothing else of the crate.
//!
//! Each image comes from one translation unit: a kernel file and the headers it includes, all handed over in memory. One
//! compilation for `sm_XX` gives machine code (a cubin, an ELF file), one for `compute_XX` gives PTX.

pub(crate) mod find;
pub(crate) mod report;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};

use libloading::Library;

/// A source text and its file's name.
pub(crate) type Source<'a> = (&'a str, &'a str);

/// What a compilation leaves.
pub(crate) struct Compiled {
    /// Machine code, an ELF file. Empty for `compute_XX`.
    pub(crate) cubin: Vec<u8>,
    /// PTX, with its final NUL.
    pub(crate) ptx: Vec<u8>,
    /// The compiler's and the assembler's messages, which [`report`] reads.
    pub(crate) log: String,
}

/// The compiler, loaded.
pub(crate) struct Nvrtc {
    call: Functions,
    version: (u32, u32),
    path: PathBuf,
    // Fields are dropped in this order, so the functions go before the code they point to.
    _library: Library,
    _builtins: Option<Library>,
}

type Program = *mut c_void;
type Status = c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Status;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// The functions of nvrtc.h that are used here, as it declares them.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    architecture_count: unsafe extern "C" fn(*mut c_int) -> Status,
    architectures: unsafe extern "C" fn(*mut c_int) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    log_size: Size,
    log: Text,
    cubin_size: Size,
    cubin: Text,
    ptx_size: Size,
    ptx: Text,
}

impl Functions {
    fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: nvrtc.h declares each of these names with the type that its field has, in every version since 11.2.
        unsafe {
            Ok(Functions {
                version: *library.get("nvrtcVersion")?,
                architecture_count: *library.get("nvrtcGetNumSupportedArchs")?,
                architectures: *library.get("nvrtcGetSupportedArchs")?,
                error: *library.get("nvrtcGetErrorString")?,
                create: *library.get("nvrtcCreateProgram")?,
                compile: *library.get("nvrtcCompileProgram")?,
                destroy: *library.get("nvrtcDestroyProgram")?,
                log_size: *library.get("nvrtcGetProgramLogSize")?,
                log: *library.get("nvrtcGetProgramLog")?,
                cubin_size: *library.get("nvrtcGetCUBINSize")?,
                cubin: *library.get("nvrtcGetCUBIN")?,
                ptx_size: *library.get("nvrtcGetPTXSize")?,
                ptx: *library.get("nvrtcGetPTX")?,
            })
        }
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: it returns a static string for any number.
        let text = unsafe { CStr::from_ptr((self.error)(status)) };
        Err(text.to_string_lossy().into_owned())
    }

    /// Reads one of the program's texts with the pair of functions that gives its size and copies it.
    fn text(&self, program: Program, size: Size, copy: Text) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: the program is alive, and `bytes` outlives the call.
        self.check(unsafe { size(program, &mut bytes) })?;
        let mut text = vec![0_u8; bytes];
        // SAFETY: the buffer has the size the library has just asked for.
        self.check(unsafe { copy(program, text.as_mut_ptr().cast()) })?;
        Ok(text)
    }
}

impl Nvrtc {
    /// Loads the newest libnvrtc in a folder, or says why that cannot be done. None when there is none.
    pub(crate) fn open(folder: &Path) -> Option<Result<Self, String>> {
        let [path, builtins] = ["libnvrtc.so", "libnvrtc-builtins.so"].map(|prefix| newest(folder, prefix));
        let path = path?;
        Some(Self::load(&path, builtins.as_deref()).map_err(|e| format!("{}: {e}", path.display())))
    }

    fn load(path: &Path, builtins: Option<&Path>) -> Result<Self, String> {
        // The wheels of 13.0 have no RUNPATH: NVRTC finds its builtins only when they are loaded already.
        // SAFETY: loading NVIDIA's libraries runs their initialisers, which ask nothing of the caller.
        let builtins = builtins.and_then(|path| unsafe { Library::new(path) }.ok());
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.map_err(with_cause)?;
        let call = Functions::of(&library).map_err(with_cause)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both numbers outlive the call.
        call.check(unsafe { (call.version)(&mut major, &mut minor) })?;
        let version = (major.unsigned_abs(), minor.unsigned_abs());
        Ok(Nvrtc { call, version, path: path.into(), _library: library, _builtins: builtins })
    }

    /// Major and minor version of CUDA, as (12, 6).
    pub(crate) fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The library's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// True when it can compile for `sm_XX`, `sm_XXa` or `compute_XX`.
    pub(crate) fn knows(&self, architecture: &str) -> bool {
        let digits: String = architecture.chars().filter(char::is_ascii_digit).collect();
        // The library lists numbers only. Its first release that accepts architecture-specific features is 12.0.
        (!architecture.ends_with('a') || self.version >= (12, 0))
            && self.architectures().iter().any(|number| number.to_string() == digits)
    }

    fn architectures(&self) -> Vec<c_int> {
        let mut count = 0;
        // SAFETY: `count` outlives the call.
        if self.call.check(unsafe { (self.call.architecture_count)(&mut count) }).is_err() {
            return Vec::new();
        }
        let mut numbers = vec![0; count.unsigned_abs() as usize];
        // SAFETY: there is room for as many numbers as the library has just counted.
        let status = unsafe { (self.call.architectures)(numbers.as_mut_ptr()) };
        self.call.check(status).map(|()| numbers).unwrap_or_default()
    }

    /// Compiles a kernel file for one architecture. The error is the compiler's log, which gives file and line.
    pub(crate) fn compile(&self, file: Source, headers: &[Source], architecture: &str) -> Result<Compiled, String> {
        let text = |s: &str| CString::new(s).map_err(|_| format!("{}: a NUL byte in the source", file.0));
        let (name, source) = (text(&format!("kernels/{}", file.0))?, text(file.1)?);
        let names = headers.iter().map(|h| text(h.0)).collect::<Result<Vec<_>, _>>()?;
        let texts = headers.iter().map(|h| text(h.1)).collect::<Result<Vec<_>, _>>()?;
        let options = options(architecture).iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (name_pointers, text_pointers, option_pointers) = (pointers(&names), pointers(&texts), pointers(&options));

        let mut program = Created { call: &self.call, program: std::ptr::null_mut() };
        // SAFETY: every pointer is to a NUL-terminated string that outlives the call, and both lists have `headers.len()`.
        self.call.check(unsafe {
            (self.call.create)(
                &mut program.program,
                source.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        })?;
        // SAFETY: the program is alive, the options are NUL-terminated and outlive the call.
        let status =
            unsafe { (self.call.compile)(program.program, option_pointers.len() as c_int, option_pointers.as_ptr()) };
        let log = self.call.text(program.program, self.call.log_size, self.call.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
        self.call.check(status).map_err(|e| if log.is_empty() { e } else { log.clone() })?;
        let cubin = match architecture.starts_with("sm_") {
            true => self.call.text(program.program, self.call.cubin_size, self.call.cubin)?,
            false => Vec::new(),
        };
        Ok(Compiled { cubin, ptx: self.call.text(program.program, self.call.ptx_size, self.call.ptx)?, log })
    }
}

/// A program, destroyed when it goes out of scope.
struct Created<'a> {
    call: &'a Functions,
    program: Program,
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: the program was created by this library and is destroyed once.
            unsafe { (self.call.destroy)(&mut self.program) };
        }
    }
}

/// What the compiler is told.
pub(crate) fn options(architecture: &str) -> Vec<String> {
    let mut options =
        vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into(), "--generate-line-info".into()];
    if architecture.starts_with("sm_") {
        options.push("--ptxas-options=-v".into());
    }
    options
}

/// The names of the headers that a kernel file includes, directly or through others.
pub(crate) fn includes<'a>(file: &str, source: impl Fn(&str) -> Option<&'a str>) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), source(file).into_iter().collect::<Vec<_>>());
    while let Some(text) = open.pop() {
        for name in text.lines().filter_map(|line| line.trim().strip_prefix("#include")?.trim().split('"').nth(1)) {
            if let Some(text) = source(name).filter(|_| found.insert(name)) {
                open.push(text);
            }
        }
    }
    found
}

fn with_cause(error: libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The file in a folder with this prefix and the highest name. The wheels' `.alt.` twins are for old host systems.
fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix) && !name.contains(".alt.")).max().map(|name| folder.join(name))
}
