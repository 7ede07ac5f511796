"""Facts that WebArena-Verified's tasks take for granted of its shop; all else is invented."""

from __future__ import annotations

FIRST_NAME, LAST_NAME, EMAIL = "Emma", "Lopez", "emma.lopez@gmail.com"
ADDRESS = 26
CATEGORIES = {
    "video-games": "Video Games",
    "video-games/playstation-4/accessories": "PlayStation 4 Accessories",
    "health-household/diet-sports-nutrition/nutrition-bars-drinks": "Nutrition Bars & Drinks",
    "health-household/household-supplies": "Household Supplies",
    "clothing-shoes-jewelry/sport-specific-clothing/competitive-swimwear": "Competitive Swimwear",
    "clothing-shoes-jewelry/men/uniforms-work-safety": "Men's Uniforms, Work & Safety",
    "clothing-shoes-jewelry/men/shoes": "Men's Shoes",
    "clothing-shoes-jewelry/women/shoes": "Women's Shoes",
    "clothing-shoes-jewelry/women/clothing": "Women's Clothing",
    "home-kitchen/furniture/accent-furniture": "Accent Furniture",
    "home-kitchen/furniture/living-room-furniture": "Living Room Furniture",
    "home-kitchen/bedding/kids-bedding": "Kids' Bedding",
    "beauty-personal-care/makeup/makeup-remover": "Makeup Remover",
    "beauty-personal-care/skin-care": "Skin Care",
    "beauty-personal-care/oral-care/children-s-dental-care": "Children's Dental Care",
    "electronics/headphones": "Headphones",
    "office-products/office-furniture-lighting/cabinets-racks-shelves": "Cabinets, Racks & Shelves",
}
"""Path -> name."""
DEAREST = {
    "video-games/playstation-4/accessories": (
        "astro-gaming-a50-wireless-headset-base-station-gen-4-compatible-with-ps5-ps4-pc-mac-black-silver"
    ),
    "health-household/diet-sports-nutrition/nutrition-bars-drinks": (
        "kellogg-s-special-k-protein-meal-bars-chocolate-caramel-12-7oz-6-count"
    ),
    "clothing-shoes-jewelry/men/uniforms-work-safety": (
        "arc-teryx-beta-sv-bib-men-s-versatile-durable-gore-tex-pro-bib-for-severe-conditions"
    ),
    "beauty-personal-care/skin-care": "professional-medi-spa-scar-stretch-mark-reduction-system",
    "health-household/household-supplies": (
        "lynx-battery-12v-200ah-lithium-iron-phosphate-lifepo4-prismatic-deep-cell-battery-set-of-4-3-2v-"
        "cells-with-3-bus-bars-and-8-lug-nuts-for-rv-solar-marine-off-grid-applications"
    ),
}
"""Category -> the address of what costs most there."""
SLUGS = {
    90001: (
        "heiying-game-card-case-for-nintendo-switch-switch-oled-game-card-or-micro-sd-memory-cards-portab"
        "le-switch-game-memory-card-storage-with-24-game-card-slots-and-24-micro-sd-card-slots-black"
    ),
    90002: "game-card-holder-storage-case-for-nintendo-switch-games-or-ps-vita-game-case-or-sd-memory-cards-black",
    90003: (
        "onlyeasy-over-the-door-shoe-storage-organizer-hanging-shoe-rack-holder-with-24-large-fabric-pock"
        "ets-22-1-x-61-4-herringbone-grey-mxrodsb1p"
    ),
    90004: (
        "portable-ssd-2tb-external-hard-drive-mobile-solid-state-drive-portable-hard-drive-for-pc-laptop-"
        "and-mac-data-storage-and-transfer-2tb-silver"
    ),
    90005: (
        "microsoft-xbox-controller-carbon-black-for-series-x-series-s-xbox-one-windows-10-android-ios-bun"
        "dled-with-dual-port-charging-dock-xbox-controller-skin-voucher-premgear-cloth"
    ),
    90006: "soft-night-guard-for-bruxism-and-teeth-grinding",
    104497: "elmwood-inn-fine-teas-orange-vanilla-caffeine-free-fruit-infusion-16-ounce-pouch",
    37811: (
        "skinit-decal-gaming-skin-compatible-with-xbox-one-s-console-and-controller-bundle-officially-lic"
        "ensed-nfl-baltimore-ravens-design"
    ),
    37285: "sceptre-e195bd-srr-19-inch-720p-led-tv-true-black-2017",
    32202: (
        "spaas-white-taper-candles-4-pack-10-inch-tall-candles-scent-free-premium-wax-candle-sticks-8-hou"
        "r-long-burning-white-candlesticks-for-home-decoration-wedding-holiday-and-parties"
    ),
    104498: (
        "v8-energy-healthy-energy-drink-steady-energy-from-black-and-green-tea-pomegranate-blueberry-8-ou"
        "nce-can-pack-of-24"
    ),
    52674: "tazrigo-5pcs-white-dental-resin-brush-pens-dental-shaping-silicone-tooth-tool",
    11615: "viviki-women-glitter-socks-ultrathin-transparent-tulle-lace-socks-no-show-ankle-crew-socks-3-pack",
    77300: (
        "dp-to-hdmi-cable-6ft-2-pack-fosmon-gold-plated-displayport-to-hdmi-cable-1080p-full-hd-for-pcs-t"
        "o-hdtv-monitor-projector-with-hdmi-port"
    ),
    90011: (
        "tall-pink-taper-candles-4-piece-orange-colored-tapered-candles-gradient-candles-10-6-inches-tall"
        "-tie-dye-candle-set-large-dripless-long-burning-candlesticks-two-color-taper-candles-candlestick"
        "s"
    ),
    90012: (
        "white-starfish-wall-candle-sconces-set-of-2-beach-decor-ocean-themed-wall-mount-candleholders-na"
        "utical-style-beach-bathroom-decor-coastal-farmhouse-seashell-candle-holders"
    ),
    90013: "ciclon-energy-drink-regular-24-cans-8-3oz",
    90014: (
        "stylus-pens-for-touch-screens-2-pcs-universal-stylus-2-in-1-2022-updated-touch-screen-pens-for-a"
        "ll-touch-screens-cell-phones-tablets-laptops-with-6-replacement-tips-4-discstips-2-fiber-tips"
    ),
    90015: "3-pairs-ruffle-socks-lace-ankle-socks-for-girls-frilly-socks-women-decorative",
    90016: (
        "35-ft-hdmi-cable-gearit-pro-series-hdmi-cable-35-feet-high-speed-ethernet-4k-resolution-3d-video"
        "-and-arc-audio-return-channel-hdmi-cable-white"
    ),
    90021: "ostent-16gb-memory-card-stick-storage-for-sony-ps-vita-psv1000-2000-pch-z081-z161-z321-z641",
    90022: "mineralogie-all-natural-lip-gloss-ruby-rose",
    90023: "sandgrens-swedish-handmade-wooden-clog-sandal-copenhagen",
    90024: "sensodyne-repair-protect-whitening-toothpaste-with-fluoride-3-4-oz-pack-of-3",
    90025: "photosmart-plus-b209-clr-inkjetfb-p-s-c-usb-wrls-1",
}
"""Number -> address of a product; its name is written from it."""
CHEAP = (32202, 104498, 52674, 11615, 77300, 90002)
"""Those that cost least for each piece."""
ABOUT = {
    90001: "Holds 24 game cards.",
    90002: "Holds 40 game cards.",
    90003: "Holds 12 pairs of shoes.",
    90004: "2 TB.",
}
"""What their pages say besides."""
NAMES = {
    71337: "Tide PODS Spring Meadow Scent HE Turbo Laundry Detergent Pacs, 81 Count",
    22787: "2 Hawaiian Bamboo Orchid Roots #zc50 - by Discount Hawaiian Gifts",
    85498: (
        "HONGJ Hawaiian Beach Outfits Set for Mens, Summer Tropical Tree Printed Relaxed-fit Hawaii Shirt"
        "s Shorts 2 Piece Suits"
    ),
    30843: (
        "DkRgVNY Lace Spcling Lingerie Womens Sexy Hollow Out Underwear Bodysuit One Piece Snap Crotch Cl"
        "ubwear Teddy Bodysuit"
    ),
    60047: (
        "Light Blue Simple Summer New Low Heels Slippers for Women Fashion Chunky Heels Pointed Toe Wine "
        "Glasses Sandals Comfortable Walking Shoes Ladies All-Match Sexy Party Shoes"
    ),
    14854: "Foundation For Mattress With Frame Set",
    15033: "Bedside Table Lamp",
    35837: "TV Stand With Shelf",
    24493: "Cat T-Shirt",
    51958: "Make Up Removal Kit",
    73063: "Floor Lamp",
    102586: "Jiffy Corn Muffin Cornbread Mix",
    101441: "Remote Controller Accessory for PS3",
    76228: "Mini Wireless Bluetooth Speaker",
    91001: "Folding Chair",
    91002: "Small White Desk",
    91003: "White Computer Desk",
    91004: "Shea Body Butter",
    91005: "Moisture Conditioner",
    91006: "Olive Bread",
    91007: "Mint Toothpaste",
    91008: "Stereo Sound System",
    91009: "Kitchen Organizer",
    91010: "Phone Screen Protector",
    91011: (
        "Bornbridge Artificial Spiral Topiary Tree - Indoor / Outdoor Topiary Trees - Artificial Outdoor "
        "Plants (2 Pack, 4' Cypress)"
    ),
    91012: 'Russound 5B45W 4" Indoor Outdoor Speakers White',
    91013: "Canvas Picture Frame",
    91014: "Cordless Vacuum Cleaner",
}
ORDERS = {
    170: ("2023-05-17", "Canceled", ((15033, 350.42),)),
    189: ("2023-05-02", "Pending", ((91014, 749.99),)),
    187: ("2023-05-02", "Canceled", ((91013, 120.0),)),
    180: ("2023-03-11", "Complete", ((91010, 12.99), (102586, 17.33), (101441, 20.0))),
    178: ("2023-02-24", "Complete", ((73063, 99.95),)),
    161: ("2023-02-27", "Complete", ((91009, 68.88), (76228, 24.5))),
    157: ("2023-02-09", "Complete", ((91008, 122.05),)),
    156: ("2023-02-11", "Canceled", ((14854, 276.53),)),
    148: ("2023-01-29", "Complete", ((91011, 260.69), (91012, 180.0))),
    147: ("2023-01-16", "Complete", ((91004, 30.0), (91005, 38.51))),
    140: ("2022-12-12", "Complete", ((91006, 9.99),)),
    139: ("2022-12-04", "Complete", ((91007, 8.5),)),
    130: ("2022-09-05", "Canceled", ((35837, 210.0),)),
    124: ("2022-07-14", "Canceled", ((51958, 31.9),)),
    118: ("2022-05-20", "Canceled", ((24493, 19.99),)),
    101: ("2022-03-02", "Complete", ((91013, 42.0),)),
}
"""Number -> (day, status, (product, price) ...)."""
SHIPPING = {170: 15.0, 189: 5.0, 180: 15.0}
DEFAULT_SHIPPING = 10.0
BILLING = ("101 S San Mateo Dr", "San Mateo", "California", "94010", "United States")
REVIEWS = {
    90021: (("Memory Card Came Defective", 1),),
    90022: (("Meh", 2),),
    90023: (("So cute but too small", 2), ("Toe rubbed", 1)),
    90025: (("Waste of big money", 1),),
}
"""Product -> (title, stars) of its reviews that are low."""
