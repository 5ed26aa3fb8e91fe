// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// DrainPeriod is for how long a replica goes on working after it was told to end. Nodes may send it requests until they
// learn that it ends, and the API server closes, one answer at a time, the connections that it keeps to it.
const DrainPeriod = 5 * time.Second

// Drained returns a context that is done a period after told is.
func Drained(told context.Context, period time.Duration) context.Context {
	ctx, cancel := context.WithCancel(context.WithoutCancel(told))
	context.AfterFunc(told, func() { time.AfterFunc(period, cancel) })
	return ctx
}

// DrainedServer is a webhook server that asks its clients to close their connections once told is done (RFC 9112 §9.6).
// The API server speaks HTTP/1.1 to webhooks and keeps its connections. One that the server closes first may be
// in the middle of a request, which is a POST and so not sent again: an update would be refused.
func DrainedServer(told context.Context, server webhook.Server) webhook.Server {
	return drainedServer{server, told}
}

type drainedServer struct {
	webhook.Server

	told context.Context
}

// Register implements webhook.Server.
func (s drainedServer) Register(path string, hook http.Handler) {
	s.Server.Register(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.told.Err() != nil {
			w.Header().Set("Connection", "close")
		}
		hook.ServeHTTP(w, r)
	}))
}
