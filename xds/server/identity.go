// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Identity is who a token belongs to.
type Identity struct {
	// User is the name that Kubernetes knows, system:serviceaccount:<namespace>:<name>.
	User string
	// Namespace, Pod and PodUID are of the pod that the token is bound to; Pod and PodUID are empty for
	// a token that is bound to none.
	Namespace, Pod, PodUID string
}

// ErrRefused is wrapped by errors of an Authenticator that mean "this token is not good", as opposed to
// "can't tell now".
var ErrRefused = errors.New("token refused")

// Authenticator tells whose a token is. Errors that don't wrap ErrRefused make the client try again.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Identity, error)
}

// Locator tells which configuration a pod gets. An error makes the client try again: a pod may be seen here
// later than it connects.
type Locator interface {
	Locate(ctx context.Context, who Identity) (Key, error)
}

// LocatorFunc is a function as Locator.
type LocatorFunc func(ctx context.Context, who Identity) (Key, error)

// Locate calls f.
func (f LocatorFunc) Locate(ctx context.Context, who Identity) (Key, error) { return f(ctx, who) }

// Identify says who opened a stream and what it gets. Its errors are gRPC statuses.
type Identify func(ctx context.Context) (Identity, Key, error)

// Anyone serves one configuration to every client. It is for `headgate run`, whose socket only its own
// Envoy can reach.
func Anyone(key Key) Identify {
	return func(context.Context) (Identity, Key, error) { return Identity{}, key, nil }
}

// Tokens identifies by the bearer token in the call's metadata. What the client says about itself is not
// looked at.
func Tokens(a Authenticator, l Locator) Identify {
	return func(ctx context.Context) (Identity, Key, error) {
		who, err := authenticate(ctx, a)
		if err != nil {
			return Identity{}, Key{}, err
		}
		if who.Pod == "" || who.PodUID == "" {
			return Identity{}, Key{}, status.Error(codes.Unauthenticated, "the token is not bound to a pod")
		}
		key, err := l.Locate(ctx, who)
		if err != nil {
			return Identity{}, Key{}, status.Errorf(codes.Unavailable, "locating pod %s/%s: %v", who.Namespace, who.Pod, err)
		}
		if key.Namespace != who.Namespace {
			return Identity{}, Key{}, status.Errorf(codes.PermissionDenied, "pod %s/%s belongs to no workload of another namespace", who.Namespace, who.Pod)
		}
		return who, key, nil
	}
}

func authenticate(ctx context.Context, a Authenticator) (Identity, error) {
	token, err := bearer(ctx)
	if err != nil {
		return Identity{}, err
	}
	who, err := a.Authenticate(ctx, token)
	switch {
	case errors.Is(err, ErrRefused):
		return Identity{}, status.Error(codes.Unauthenticated, err.Error())
	case err != nil:
		return Identity{}, status.Error(codes.Unavailable, fmt.Sprintf("authenticating: %v", err))
	}
	return who, nil
}

func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return "", status.Errorf(codes.Unauthenticated, "want one authorization header, got %d", len(values))
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", status.Error(codes.Unauthenticated, "the authorization header is no bearer token")
	}
	return token, nil
}
