"""Programming languages by the names of files and by their first line."""

import re

_SUFFIXES = {
    "python": ".py .pyi .pyx .pyw", "javascript": ".js .mjs .cjs .jsx", "typescript": ".ts .tsx .mts .cts", "java": ".java",
    "kotlin": ".kt .kts",
    "scala": ".scala .sc", "groovy": ".groovy .gradle", "c": ".c .h", "c++": ".cc .cpp .cxx .hh .hpp .hxx .ipp", "c#": ".cs",
    "f#": ".fs .fsi .fsx",
    "objective-c": ".m .mm", "swift": ".swift", "go": ".go", "rust": ".rs", "zig": ".zig", "d": ".d", "nim": ".nim",
    "ruby": ".rb .rake", "php": ".php",
    "perl": ".pl .pm .t", "lua": ".lua", "r": ".r", "julia": ".jl", "matlab": ".mat", "fortran": ".f .f90 .f95 .for",
    "pascal": ".pas .pp", "ada": ".adb .ads",
    "cobol": ".cob .cbl", "basic": ".bas .vb .vbs", "haskell": ".hs .lhs", "ocaml": ".ml .mli", "elixir": ".ex .exs", "erlang": ".erl .hrl",
    "clojure": ".clj .cljs .cljc .edn", "lisp": ".lisp .lsp .el .cl", "scheme": ".scm .ss .rkt", "prolog": ".pro",
    "shell": ".sh .bash .zsh .fish .ksh",
    "powershell": ".ps1 .psm1", "batch": ".bat .cmd", "sql": ".sql", "graphql": ".graphql .gql", "protobuf": ".proto",
    "assembly": ".s .asm .nasm",
    "verilog": ".v .sv", "vhdl": ".vhd .vhdl", "cuda": ".cu .cuh", "glsl": ".glsl .vert .frag", "css": ".css .scss .sass .less",
    "vue": ".vue",
    "svelte": ".svelte", "xml": ".xml .xsd .xsl .xslt .svg .rng", "tex": ".tex .sty .cls .bib", "toml": ".toml",
    "ini": ".ini .cfg .conf .properties",
    "terraform": ".tf .hcl", "nix": ".nix", "cmake": ".cmake", "dart": ".dart", "solidity": ".sol", "tcl": ".tcl", "awk": ".awk",
    "diff": ".diff .patch",
    "gdscript": ".gd", "crystal": ".cr", "coq": ".coq", "lean": ".lean", "vim": ".vim", "jinja": ".j2 .jinja",
}  # fmt: skip
_BY_SUFFIX = {suffix: language for language, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_NAMES = {
    "makefile": "make", "gnumakefile": "make", "dockerfile": "dockerfile", "containerfile": "dockerfile", "cmakelists.txt": "cmake",
    "rakefile": "ruby",
    "gemfile": "ruby", "jenkinsfile": "groovy", "vagrantfile": "ruby", "justfile": "just", "build.bazel": "starlark",
    "workspace": "starlark",
    "meson.build": "meson", "procfile": "ini",
}  # fmt: skip
_SHEBANG = re.compile(rb"#!\s*/\S*?(?:env\s+(?:-\S+\s+)*)?([a-z]+)[0-9.]*(?:\s|$)")
_INTERPRETERS = {
    b"python": "python", b"pypy": "python", b"bash": "shell", b"sh": "shell", b"zsh": "shell", b"ksh": "shell", b"dash": "shell",
    b"fish": "shell",
    b"node": "javascript", b"deno": "typescript", b"ruby": "ruby", b"perl": "perl", b"php": "php", b"lua": "lua", b"awk": "awk",
    b"gawk": "awk",
    b"julia": "julia", b"rscript": "r", b"tclsh": "tcl", b"make": "make", b"groovy": "groovy",
}  # fmt: skip
# Suffixes that texts and data have too: these need a sign of code.
_UNSURE = {".t", ".m", ".d", ".v", ".cl", ".s", ".pro", ".mat", ".cls", ".r", ".f"}
_SIGN = re.compile(rb"[;{}]\s*$|^\s*(use|import|module|#include|%|//|--|\.\w+|function|\w+ <- )", re.MULTILINE)


def language_of(name: str, head: bytes) -> str | None:
    """The programming language of a file; None when it is none by its name and its first line.

    Args:
        name: POSIX path or name.
        head: its first bytes, or b"" to go by the name alone.
    """
    base = name.rpartition("/")[2].lower()
    if base in _NAMES:
        return _NAMES[base]
    suffix = "." + base.rpartition(".")[2] if "." in base.lstrip(".") else ""
    if language := _BY_SUFFIX.get(suffix):
        return language if suffix not in _UNSURE or (head and _SIGN.search(head[:8192])) else None
    if not suffix and (found := _SHEBANG.match(head)):
        return _INTERPRETERS.get(found[1])
    return None
