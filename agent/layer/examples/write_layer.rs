//! Writes a tar into a layer store and says how fast: `write_layer STATE TAR`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use strata_layer::LayerStore;
use strata_model::Algorithm;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, state, tar] = arguments.as_slice() else { return Err("usage: write_layer STATE TAR".into()) };
    let store = LayerStore::open(Path::new(state))?;
    let mut file = File::open(tar)?;
    let mut buffer = vec![0; 256 << 10];
    let begun = Instant::now();
    let mut writer = store.writer(Algorithm::Sha256)?;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        writer.push(&buffer[..read])?;
    }
    let streamed = begun.elapsed();
    let published = writer.finish(None)?;
    let all = begun.elapsed();
    let bytes = published.tar_bytes as f64 / 1e6;
    println!(
        "{} {} entries, index {} bytes",
        published.digest,
        published.entries,
        published.file_bytes - published.tar_bytes
    );
    println!(
        "stream {:.3} s {:.0} MB/s; with index and syncs {:.3} s {:.0} MB/s",
        streamed.as_secs_f64(),
        bytes / streamed.as_secs_f64(),
        all.as_secs_f64(),
        bytes / all.as_secs_f64()
    );
    let begun = Instant::now();
    let place = store.ensure_mounted(&published.digest)?;
    println!("mounted ({}) at {} in {:?}", store.mount_mode().name(), place.display(), begun.elapsed());
    Ok(())
}
