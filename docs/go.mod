module example.com/ttrpc-starter/docs

go 1.26.0

toolchain go1.26.8

require (
	example.com/ttrpc-starter v0.0.0
	github.com/yuin/goldmark v1.8.7
)

replace example.com/ttrpc-starter => ..
