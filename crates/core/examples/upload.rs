//! Uploads a file and shows how far it is: `cargo run --example upload -- FILE BUCKET KEY`.
//!
//! Credentials, region and endpoint come from where AWS's own tools find them.

use brigade::progress::{self, Event};
use brigade::{Session, SessionOptions, UploadOptions};
use futures::StreamExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(bucket), Some(key)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: upload FILE BUCKET KEY".into());
    };
    // The engine has threads of its own, so any executor will do.
    futures::executor::block_on(async {
        let session = Session::new(SessionOptions::default()).await?;
        let (emitter, mut events) = progress::channel();
        let options = UploadOptions { events: emitter, ..UploadOptions::default() };
        let object = session.bucket(bucket).object(key);
        let upload = object.upload_file_with(file, options);
        let show = async {
            let mut moved = 0;
            while let Some(event) = events.next().await {
                if let Event::Moved { bytes } = event {
                    moved += bytes;
                    eprintln!("{moved} bytes");
                }
            }
        };
        let (report, ()) = futures::join!(upload, show);
        let report = report?;
        println!(
            "{} bytes in {} ms, verified: {}",
            report.bytes, report.elapsed_ms, report.verified
        );
        Ok(())
    })
}
