#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Fails if a file that is made from others is not what would be made now. Works on a copy, so that the tree
# stays as it is, with whatever is not committed yet.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' f; do
  [[ ! -e $f ]] || printf '%s\0' "$f"
done | tar --null --files-from=- -cf - | tar -xf - -C "$copy"
cd "$copy"

status=0
check() { # what, command to cure it
  if ! diff -ru --exclude=.git --exclude=.cache --exclude=out "$root/$3" "$copy/$3"; then
    echo "verify: $1 not up to date; run: $2" >&2
    status=1
  fi
}

make --no-print-directory generate
check "generated code is" "make generate" api
check "the chart's definitions are" "make generate" charts/headgate/crds
check "the copy of a definition is" "make generate" replay/headgate.dev_rolloutpolicies.yaml

unformatted=$(find . -name '*.go' -not -path './.cache/*' -print0 | xargs -0r gofmt -l)
if [[ -n $unformatted ]]; then
  printf 'verify: not formatted; run: make fmt\n%s\n' "$unformatted" >&2
  status=1
fi

for mod in $(git -C "$root" ls-files '*go.mod'); do
  dir=$(dirname "$mod")
  if ! go -C "$dir" mod tidy -diff; then
    echo "verify: $mod is not tidy; run: go -C $dir mod tidy" >&2
    status=1
  fi
done

# Everything that people read carries the licence.
missing=$(git -C "$root" ls-files --cached --others --exclude-standard '*.go' '*.sh' 'Makefile' 'Dockerfile' |
  (cd "$root" && xargs -r ls 2>/dev/null | xargs -r grep -L 'SPDX-License-Identifier' | grep -v zz_generated || true))
if [[ -n $missing ]]; then
  printf 'verify: no SPDX header:\n%s\n' "$missing" >&2
  status=1
fi
exit $status
