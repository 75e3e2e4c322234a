module example.com/ttrpc-starter/bench

go 1.26.0

toolchain go1.26.8

require example.com/ttrpc-starter v0.0.0

replace example.com/ttrpc-starter => ../
