#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Runs the end-to-end tests; with BENCH=regexp benchmarks instead, BENCHTIME of each (10x). With KUBECONFIG, on that
# cluster, which must have the images; they leave Headgate installed there. Without it, on a local cluster that is made for
# them and taken down at the end, whatever happens; KUBERNETES is the minor version that it runs. RUN selects tests,
# E2E_TIMEOUT bounds them.
set -euo pipefail
cd "$(dirname "$0")/.."

# What the upgrade begins with: the release before, or while there is none, the commit that stands for it.
previous=0138e0021da0

cluster() { go -C e2e/cluster run . "$@"; }

if [[ -n ${KUBECONFIG-} ]]; then
  if [[ -n ${KUBERNETES-} ]]; then
    echo "KUBERNETES is the version of the local cluster, KUBECONFIG a cluster that runs already: give one of them" >&2
    exit 2
  fi
  KUBECONFIG=$(realpath "$KUBECONFIG")
  for program in HEADGATE_KUBECTL HEADGATE_HELM; do
    [[ -x ${!program-} ]] || unset "$program" # those of PATH, then
  done
else
  name=e2e
  trap 'cluster down --name "$name"' EXIT
  trap 'exit 130' INT TERM
  # The certificates and test tools of a cluster that was left behind would do, its state would not.
  cluster down --name "$name"
  cluster build helm
  KUBECONFIG=$(cluster up --name "$name" --images --metrics --kubernetes "${KUBERNETES-}")
  if [[ -n ${KUBERNETES-} ]]; then
    HEADGATE_KUBECTL=$PWD/.cache/bin/$KUBERNETES/kubectl
    export HEADGATE_KUBECTL
  fi
  if [[ -n ${BENCH-} ]]; then
    : # it begins with the present version
  elif git cat-file -e "$previous^{commit}" 2>/dev/null; then
    HEADGATE_E2E_PREVIOUS=$(cluster load --name "$name" --from "$previous")
    export HEADGATE_E2E_PREVIOUS
  else
    echo "this clone has no commit $previous: the upgrade from it is left out (git fetch --unshallow gets it)" >&2
  fi
  # Nothing else lives on this cluster.
  export HEADGATE_E2E_UNINSTALL=true
fi
export KUBECONFIG

if [[ -n ${BENCH-} ]]; then
  go test -tags e2e -run '^$' -bench "$BENCH" -benchtime "${BENCHTIME:-10x}" -timeout 6h -v ./e2e
  exit
fi

# One package after the other, because they share the cluster. In this order: webhooks are tried before the
# chart is installed.
PACKAGES='./api/v1alpha1 ./webhook ./xds/... ./e2e/...' hack/gotest.sh e2e -tags e2e -count=1 -p 1 \
  -timeout "${E2E_TIMEOUT:-80m}" -run "${RUN:-.}" -- .
