package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Metadata that tells the server who has called. What a caller sends under such a key does not reach the server.
const (
	ownPrefix   = "x-ttgate-"
	peerAddress = ownPrefix + "peer-address" // HOST:PORT
	peerSubject = ownPrefix + "peer-subject" // of the certificate that was verified, RFC 2253
	peerName    = ownPrefix + "peer-name"    // each of its names: DNS, URI, email
)

// forward passes a call on. Its messages stay as they are encoded, because Empty knows no fields.
func (g *gate) forward(_ any, client grpc.ServerStream) (err error) {
	name, _ := grpc.MethodFromServerStream(client)
	l, err := g.backend.current()
	if err != nil {
		return err
	}
	method := l.methods[name]
	if method == nil {
		return status.Errorf(codes.Unimplemented, "the backend has no method %s", name)
	}
	ctx, cancel := untilFull(g.outgoing(client.Context()))
	defer cancel()
	defer func() {
		if err != nil && errors.Is(context.Cause(ctx), errNoMemory) {
			err = errNoMemory
		}
	}()
	if !method.IsStreamingClient() && !method.IsStreamingServer() {
		req, resp := new(emptypb.Empty), new(emptypb.Empty)
		if err := receiveOnly(client, req); err != nil {
			return err
		}
		if err := l.call(ctx, name, req, resp); err != nil {
			return err
		}
		return client.SendMsg(resp)
	}
	server, err := l.stream(ctx, name, &grpc.StreamDesc{
		ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer(),
	})
	if err != nil {
		return err
	}
	if method.IsStreamingClient() {
		go passRequests(client, server)
	} else {
		req := new(emptypb.Empty)
		if err := receiveOnly(client, req); err != nil {
			return err
		}
		if err := server.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	for {
		resp := new(emptypb.Empty)
		if err := server.RecvMsg(resp); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := client.SendMsg(resp); err != nil {
			return err
		}
	}
}

// receiveOnly receives the only message of a client that sends no stream.
func receiveOnly(client grpc.ServerStream, m *emptypb.Empty) error {
	err := client.RecvMsg(m)
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the method takes one message: none was sent")
	} else if err != nil {
		return err
	}
	err = client.RecvMsg(new(emptypb.Empty))
	if err == nil {
		return status.Error(codes.InvalidArgument, "the method takes one message: more were sent")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// passRequests passes a client's messages on until it closes its side or the call ends. What is wrong with the server,
// its answers tell.
func passRequests(client grpc.ServerStream, server grpc.ClientStream) {
	for {
		req := new(emptypb.Empty)
		if err := client.RecvMsg(req); err != nil {
			if errors.Is(err, io.EOF) {
				_ = server.CloseSend()
			}
			return
		}
		if err := server.SendMsg(req); err != nil {
			return
		}
	}
}

// dropped are headers that are about the connection or the browser, and not about the call. So are those that begin
// with ":", "grpc-", "connect-", "accept" or "sec-".
var dropped = map[string]bool{
	"connection": true, "content-encoding": true, "content-length": true, "content-type": true, "host": true,
	"keep-alive": true, "origin": true, "referer": true, "te": true, "trailer": true, "transfer-encoding": true,
	"upgrade": true, "user-agent": true,
}

// outgoing returns a context with the caller's metadata, and with who the caller is.
func (g *gate) outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for key, values := range in {
		switch prefix, _, _ := strings.Cut(key, "-"); {
		case strings.HasPrefix(key, ownPrefix), strings.HasPrefix(key, ":"), strings.HasPrefix(key, "accept"),
			prefix == "grpc", prefix == "connect", prefix == "sec", dropped[key]:
		default:
			out[key] = values
		}
	}
	if p, ok := peer.FromContext(ctx); ok {
		out.Set(peerAddress, p.Addr.String())
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
			cert := info.State.VerifiedChains[0][0]
			out.Set(peerSubject, cert.Subject.String())
			out.Set(peerName, names(cert)...)
		}
	}
	g.tracing.carry(ctx, out)
	return metadata.NewOutgoingContext(ctx, out)
}

func names(cert *x509.Certificate) []string {
	all := append([]string(nil), cert.DNSNames...)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	return append(all, cert.EmailAddresses...)
}
