module example.com/ttrpc-starter

go 1.26.0

toolchain go1.26.8

require (
	github.com/containerd/log v0.1.0 // ttrpc logs through it
	github.com/containerd/ttrpc v1.2.10
	golang.org/x/sys v0.49.0 // peer credentials
	google.golang.org/grpc v1.81.1 // codes and status, which ttrpc's errors are made of
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/sirupsen/logrus v1.9.4 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260226221140-a57be14db171 // indirect
)
