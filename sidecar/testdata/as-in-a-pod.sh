#!/bin/sh
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Starts $ENVOY as a pod would: another user, no capability, no new privileges, everything read-only.
exec unshare --mount sh -c '
  mount --make-rprivate / && mount -o remount,bind,ro / && for m in /tmp /var/tmp /dev/shm /run; do
    if mountpoint -q "$m"; then mount -o remount,bind,ro "$m"; fi
  done
  exec setpriv --reuid 1337 --regid 1337 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$ENVOY" "$@"
' sh "$@"
