module example.com/ttrpc-starter/docs

go 1.26.0

toolchain go1.26.8

require github.com/yuin/goldmark v1.8.7
