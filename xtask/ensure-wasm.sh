#!/usr/bin/env bash
# Makes the active Rust toolchain able to build for wasm32-wasip2. `cargo xtask wasm` runs it.
#
# In this order, the first that works:
#   present  the toolchain builds for the target already, or an earlier run made a way
#   rustup   rustup target add wasm32-wasip2 (left out with VERS_NO_RUSTUP=1)
#   source   the target's standard library, compiled once by the installed compiler from Debian's
#            rust-src of exactly its version, and linked into the toolchain
#   second   a second compiler, Debian's rustc-web, and the library from its own rust-web-src
# The Debian ways install nothing system-wide: packages are fetched by apt, which checks their
# signatures, and unpacked in the cache. The library's crates are pinned by its own Cargo.lock. To
# undo, remove the link lib/rustlib/wasm32-wasip2 in the toolchain; rustup asks for that too.
#
# On stdout: nothing, if `cargo build --target wasm32-wasip2` works from now on; else one line, the
# compiler to build with (as RUSTC). Everything else is told on stderr.
#
# VERS_NO_RUSTUP=1      do not ask rustup
# VERS_DEBIAN_MIRROR    a Debian mirror, where the machine's own apt names none
# XDG_CACHE_HOME        what is kept lies in vers-gateway/wasm below it; it may be deleted at any time
set -euo pipefail

TARGET=wasm32-wasip2
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/vers-gateway/wasm
WORK=$CACHE/work
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'wasm: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null; }

if ! have cargo || ! have rustc; then say "no cargo and rustc on PATH: install Rust first"; exit 1; fi
RUSTC=${RUSTC:-rustc}
about() { "$RUSTC" -vV | sed -n "s/^$1: //p"; }
RELEASE=$(about release) COMMIT=$(about commit-hash) HOST=$(about host)
SYSROOT=$("$RUSTC" --print sysroot)
IN_TOOLCHAIN=$SYSROOT/lib/rustlib/$TARGET
STD=$CACHE/std/$RELEASE-${COMMIT:0:9}-$HOST # a sysroot that holds the target and nothing else

# ------------------------------------------------------------------------------------ the ways

present() { builds "$RUSTC" || kept; }

kept() {
  if [ -d "$STD" ] && use_std; then return 0; fi
  local second
  for second in "$CACHE"/second/*/bin/rustc; do
    if [ -x "$second" ] && builds "$second"; then echo "$second"; return 0; fi
  done
  return 1
}

rustup_add() {
  if [ -n "${VERS_NO_RUSTUP:-}" ]; then say "rustup is left out (VERS_NO_RUSTUP)"; return 1; fi
  if ! have rustup; then say "there is no rustup"; return 1; fi
  say "rustup target add $TARGET (two minutes at most)"
  if [ -L "$IN_TOOLCHAIN" ]; then rm "$IN_TOOLCHAIN"; fi # a link of ours that leads nowhere
  local limit=()
  if have timeout; then limit=(timeout 120); fi
  if RUST_BACKTRACE=0 "${limit[@]}" rustup target add "$TARGET" </dev/null >&2 && builds "$RUSTC"; then
    return 0
  fi
  say "rustup could not; trying without it"
  return 1
}

source_build() {
  local sources library
  sources=$(find_package rust-src "$RELEASE" trixie-backports forky sid) ||
    sources=$(find_package rust-web-src "$RELEASE" bookworm-security) ||
    { say "Debian has no rust-src of version $RELEASE"; return 1; }
  # shellcheck disable=SC2086 # "suite package=version": two words
  unpack "$WORK/src" $sources || return 1
  library=$(echo "$WORK"/src/usr/src/rustc-*/library)
  build_std "$library" "$SYSROOT/bin/rustc" "$WORK/std" || return 1
  mkdir -p "${STD%/*}" && rm -rf "$STD" && mv "$WORK/std" "$STD" && use_std
}

second_compiler() {
  local suite=bookworm-security found version packages dir
  found=$(find_package rustc-web '' "$suite") || { say "Debian has no rustc-web"; return 1; }
  version=${found#*=} dir=$CACHE/second/${found#*=}
  packages=$(apt_in "$suite" cache depends --recurse --important rustc-web |
    grep -E '^(rustc-web|libstd-rust-web.*|libllvm.*)$' | sort -u)
  say "a second compiler for the plugins: Debian's rustc-web $version"
  # shellcheck disable=SC2086 # one word a package
  unpack "$WORK/second" "$suite" $packages "rust-web-src=$version" || return 1
  wrapper "$WORK/second" "$WORK/second" && build_std "$(echo "$WORK"/second/usr/src/rustc-*/library)" \
    "$WORK/second/bin/rustc" "$WORK/second/usr" || return 1
  rm -rf "$WORK/second/usr/src" "$dir"
  mkdir -p "${dir%/*}" && mv "$WORK/second" "$dir" && wrapper "$dir" "$dir"
  builds "$dir/bin/rustc" && echo "$dir/bin/rustc"
}

# --------------------------------------------------------------------------------------- parts

# builds RUSTC: the only proof that counts, a program compiled and linked (a fifth of a second).
builds() {
  local dir ok=1
  dir=$(mktemp -d)
  echo 'fn main() {}' >"$dir/main.rs"
  if (cd "$dir" && "$1" --edition 2024 --target "$TARGET" main.rs -o main.wasm) >/dev/null 2>&1; then ok=0; fi
  rm -rf "$dir"
  return $ok
}

# The library in the cache becomes the toolchain's by a link, so that plain cargo finds it. Where
# the toolchain may not be written, a wrapper names the cache as the compiler's sysroot instead.
use_std() {
  if [ -w "$SYSROOT/lib/rustlib" ] && { [ -L "$IN_TOOLCHAIN" ] || [ ! -e "$IN_TOOLCHAIN" ]; }; then
    ln -sfn "$STD/lib/rustlib/$TARGET" "$IN_TOOLCHAIN"
    if builds "$RUSTC"; then say "linked $IN_TOOLCHAIN to the cache"; return 0; fi
    rm "$IN_TOOLCHAIN"
    return 1
  fi
  ln -sfn "$SYSROOT/lib/rustlib/$HOST" "$STD/lib/rustlib/$HOST"
  script "$STD/bin/rustc" "exec '$SYSROOT/bin/rustc' --sysroot '$STD' \"\$@\""
  builds "$STD/bin/rustc" && echo "$STD/bin/rustc"
}

# wrapper WHERE ROOT: the second compiler's start; the linkers are those of the installed toolchain.
wrapper() {
  local tools=$SYSROOT/lib/rustlib/$HOST/bin libraries
  libraries=$(dirname "$(echo "$2"/usr/lib/*/librustc_driver-*.so)")
  script "$1/bin/rustc" "PATH='$tools:$tools/gcc-ld':\$PATH" \
    "LD_LIBRARY_PATH='$libraries'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" \
    "export PATH LD_LIBRARY_PATH" "exec '$2/usr/bin/rustc' \"\$@\""
}

script() { # PATH LINE...
  mkdir -p "${1%/*}"
  printf '%s\n' '#!/bin/sh' "${@:2}" >"$1"
  chmod +x "$1"
}

# build_std LIBRARY RUSTC SYSROOT: compiles the standard library's sources for the target into SYSROOT.
build_std() {
  local library=$1 rustc=$2 out=$3/lib/rustlib/$TARGET/lib commit flags name
  find_wasi_libc || return 1
  commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
  flags=(-Cembed-bitcode=yes -Zforce-unstable-if-unmarked --cap-lints=warn
    "--remap-path-prefix=$library=/rustc/$commit/library")
  say "compiling the standard library for $TARGET (once; about half a minute)"
  (
    for name in $(compgen -e); do # what a user sets for other builds must not change this one
      case $name in
        CARGO_BUILD_* | CARGO_PROFILE_* | CARGO_TARGET_* | CARGO_INCREMENTAL) unset "$name" ;;
        RUSTC* | RUSTFLAGS) unset "$name" ;;
      esac
    done
    export RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$WORK/target
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037' && echo "${flags[*]}")
    export CARGO_ENCODED_RUSTFLAGS
    cd "$library/sysroot" && cargo build --release --locked --target "$TARGET"
  ) >&2 || { say "the standard library did not compile (see above)"; return 1; }
  mkdir -p "$out/self-contained"
  cp "$WORK/target/$TARGET/release/deps/"*.rlib "$out/" && rm -f "$out"/libsysroot-*.rlib
  cp "$WORK/wasi/usr/lib/$TARGET/"{libc.a,crt1-command.o,crt1-reactor.o} "$out/self-contained/"
}

find_wasi_libc() {
  local libc
  libc=$(find_package wasi-libc '' trixie-backports trixie) || { say "Debian has no wasi-libc"; return 1; }
  # shellcheck disable=SC2086 # "suite package=version": two words
  unpack "$WORK/wasi" $libc
}

# -------------------------------------------------------------------------------------- Debian

debian_reachable() {
  if ! have apt-get || ! have dpkg-deb || [ ! -r "$KEYRING" ]; then
    say "no Debian packages here: that needs apt-get, dpkg-deb and $KEYRING"
    return 1
  fi
  if [ -z "$(mirror)" ]; then
    say "no Debian mirror is known: set VERS_DEBIAN_MIRROR"
    return 1
  fi
  read_lists trixie-backports || { say "the Debian mirror does not answer"; return 1; }
}

# mirror [-security]: VERS_DEBIAN_MIRROR, else the address that the machine's own apt uses.
mirror() {
  if [ -n "${VERS_DEBIAN_MIRROR:-}" ]; then echo "${VERS_DEBIAN_MIRROR%/}${1:-}"; return 0; fi
  apt-get update --print-uris 2>/dev/null | sed -n "s#^'\(.*/debian${1:-}\)/dists/.*#\1#p" | sort -u | head -1
}

# apt_in SUITE get|cache ARGUMENT...: apt with lists of its own, so that the machine's stay untouched.
apt_in() {
  local dir=$CACHE/apt/$1 command=apt-$2
  "$command" -q -o Dir::State="$dir" -o Dir::State::Status=/dev/null -o Dir::Cache="$dir" \
    -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=2 \
    -o Acquire::http::Timeout=20 "${@:3}"
}

# read_lists SUITE: fetches a suite's list of packages, at most once an hour.
read_lists() {
  local dir=$CACHE/apt/$1 base
  if [ -n "$(find "$dir/read" -mmin -60 2>/dev/null)" ]; then return 0; fi
  case $1 in *-security) base=$(mirror -security) ;; *) base=$(mirror) ;; esac
  mkdir -p "$dir/lists/partial" "$dir/archives/partial"
  echo "deb [signed-by=$KEYRING] $base $1 main" >"$dir/sources.list"
  say "reading Debian's list of packages, $1"
  apt_in "$1" get update --error-on=any >&2 && touch "$dir/read"
}

# find_package NAME VERSION SUITE...: "SUITE NAME=VERSION" of the first suite that has it, newest first.
find_package() {
  local suite found
  for suite in "${@:3}"; do
    read_lists "$suite" || continue
    found=$(apt_in "$suite" cache madison "$1" | awk -F' *[|] *' -v want="$2+" \
      '!found && (want == "+" || index($2, want) == 1) { found = $2 } END { print found }')
    if [ -n "$found" ]; then echo "$suite $1=$found"; return 0; fi
  done
  return 1
}

# unpack FOLDER SUITE PACKAGE...: of compiler sources only library/ (a tenth of the files).
unpack() {
  local dir=$1 suite=$2 package
  mkdir -p "$dir" && rm -rf "$WORK/get" && mkdir "$WORK/get"
  say "fetching ${*:3}"
  (cd "$WORK/get" && apt_in "$suite" get download "${@:3}") >&2 || return 1
  for package in "$WORK"/get/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar -x -C "$dir" --no-wildcards-match-slash --exclude='./usr/src/rustc-*/[!l]*' || return 1
  done
}

# ------------------------------------------------------------------------------------ the order

if builds "$RUSTC"; then exit 0; fi

mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
if have flock && ! flock -n 9; then say "waiting for another run"; flock 9; fi
rm -rf "$WORK" && mkdir "$WORK"
trap 'rm -rf "$WORK"' EXIT

if present; then exit 0; fi
say "Rust $RELEASE cannot build for $TARGET yet"
if rustup_add || { debian_reachable && { source_build || second_compiler; }; }; then
  say "ready"
  exit 0
fi

say "found no way to build for $TARGET with Rust $RELEASE. One of these helps:"
say "  - on a machine that reaches Rust's own server: rustup target add $TARGET"
say "  - on Debian: let apt reach its mirror, or name one in VERS_DEBIAN_MIRROR"
say "  - elsewhere: apt, dpkg and debian-archive-keyring installed, and VERS_DEBIAN_MIRROR set"
exit 1
