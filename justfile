# Short names for what is done often. `just gate` equals `.ci/run`, which works without just.

# Lists the recipes.
default:
    @just --list

# Everything a change must pass, cheapest first.
gate:
    .ci/run

# Formats all code.
fmt:
    cargo fmt --all

# Lints all code, warnings denied.
lint:
    cargo clippy --release --workspace --all-targets -- -D warnings

# Runs all tests, or those whose name contains one of the words.
test *words:
    cargo test --release --workspace -- {{words}}

# The whole story on real photos, offline.
demo *arguments:
    cargo run --release -- demo {{arguments}}
