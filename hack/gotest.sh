#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Runs go test in several modules as one test run with one summary.
#
#   hack/gotest.sh TITLE [FLAGS OF GO TEST] -- MODULE...
#
# PACKAGES chooses packages (default: ./...), VET=1 runs go vet as well. Every event is kept in
# out/tests/TITLE.json, from which hack/test.sh counts.
set -euo pipefail
cd "$(dirname "$0")/.."

title=$1
shift
flags=()
while [[ $1 != -- ]]; do
  flags+=("$1")
  shift
done
shift

if [[ ${HEADGATE_GOTEST-} == events ]]; then
  # Called by gotestsum, below: the events of all modules, one after the other.
  read -ra packages <<<"${PACKAGES:-./...}"
  status=0
  for module in "$@"; do
    [[ -z ${VET-} ]] || go -C "$module" vet "${packages[@]}" || status=1
    go -C "$module" test -json "${flags[@]}" "${packages[@]}" || status=1
  done
  exit $status
fi

mkdir -p out/tests
HEADGATE_GOTEST=events go tool -modfile=tools/go.mod gotestsum \
  --format "${GOTESTSUM_FORMAT:-pkgname-and-test-fails}" --format-hide-empty-pkg --hide-summary=skipped \
  --jsonfile "out/tests/$title.json" --raw-command -- hack/gotest.sh "$title" "${flags[@]}" -- "$@"
