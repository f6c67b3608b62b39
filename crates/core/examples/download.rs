//! Downloads an object and insists on proof: `cargo run --example download -- BUCKET KEY FILE`.
//!
//! Credentials, region and endpoint come from where AWS's own tools find them.

use brigade::{DownloadOptions, Session, SessionOptions, Verify};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bucket), Some(key), Some(file)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: download BUCKET KEY FILE".into());
    };
    // The engine has threads of its own, so any executor will do.
    futures::executor::block_on(async {
        let session = Session::new(SessionOptions::default()).await?;
        let options = DownloadOptions { verify: Verify::Require, ..DownloadOptions::default() };
        let report = session.bucket(bucket).object(key).download_file_with(file, options).await?;
        println!(
            "{} bytes in {} ms, verified: {}",
            report.bytes, report.elapsed_ms, report.verified
        );
        Ok(())
    })
}
